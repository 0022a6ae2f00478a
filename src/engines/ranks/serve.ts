// A rank that computes for rank 0: it holds the weights, gets values and tokens, and gives results.

import { hostname } from "node:os";
import { UserError } from "../../core/errors.ts";
import { statIfPresent } from "../../files/atomic.ts";
import { sha256OfFile } from "../../files/safetensors.ts";
import { type flattened, rebuilt } from "../../graph/tensor.ts";
import type { Engine, Feeds, Program, Weight } from "../engine.ts";
import { openEngine } from "../index.ts";
import { type LinkOptions, openLink } from "./link.ts";
import type { Launch } from "./mpi.ts";

export interface ServeOptions extends LinkOptions {
  /** Of this program. */
  readonly version: string;
  /** CUDA_VISIBLE_DEVICES. */
  readonly visibleCards?: string | undefined;
  /** Where a model's file may lie under its SHA-256, as in the hub's cache. */
  readonly blobs: (sha256: string) => Iterable<string>;
  readonly onNote: (note: string) => void;
}

export type ModelFile = Readonly<{ path: string; size: number; sha256: string }>;
/** Bytes, or where they are in a file. */
export type SentWeight =
  | Uint8Array
  | Readonly<{ sha256: string; offset: number; byteLength: number }>;

/** A file's size and SHA-256, which is read once as long as the file stays as it is. */
export function fileReader() {
  const known = new Map<string, Promise<string>>();
  return async (path: string, ofSize?: number): Promise<ModelFile | undefined> => {
    const { size, mtimeMs } = (await statIfPresent(path)) ?? {};
    if (size === undefined || size !== (ofSize ?? size)) return undefined;
    const key = `${path} ${size} ${mtimeMs}`;
    if (!known.has(key)) known.set(key, sha256OfFile(path));
    return { path, size, sha256: await known.get(key)! };
  };
}

/** What rank 0 can ask for. */
export type Serving = ReturnType<typeof serving>;

function serving({ version, visibleCards, blobs, onNote }: ServeOptions) {
  const read = fileReader();
  /** Files by SHA-256, what runs are fed by name, and programs by the number that rank 0 gave them. */
  const files = new Map<string, string>();
  const fed = new Map<string, Feeds[string]>();
  const programs = new Map<number, Program>();
  let engine: Engine | undefined;
  return {
    greet: async (_: { host: string; pid: number }) => ({
      host: hostname(),
      pid: process.pid,
      version,
    }),
    open: async (asked: { device: string; threads: number; ranksHere: number }) => {
      const { device, ...options } = asked;
      engine = await openEngine(device, { ...options, visibleCards });
      const { description, precisions, lanes, deviceFree } = engine;
      onNote(`computes on ${description}`);
      return { description, precisions, lanes, deviceFree };
    },
    /** Which of these files are neither at their path nor in the cache. */
    missing: async (asked: readonly ModelFile[]) => {
      for (const { path, size, sha256 } of asked)
        for (const candidate of files.has(sha256) ? [] : [path, ...blobs(sha256)])
          if ((await read(candidate, size))?.sha256 === sha256) files.set(sha256, candidate);
      return asked.filter(({ sha256 }) => !files.has(sha256));
    },
    compile: async (asked: {
      id: number;
      graph: ReturnType<typeof flattened>;
      weights: ReadonlyMap<string, SentWeight>;
    }) => {
      const bound = [...asked.weights].map(([name, weight]): [string, Weight] => {
        if (weight instanceof Uint8Array) return [name, weight];
        const { sha256, ...range } = weight;
        return [name, { file: files.get(sha256)!, ...range }];
      });
      programs.set(asked.id, await engine!.compile(rebuilt(asked.graph), new Map(bound)));
    },
    /** Gets those of the feeds that are others than before, and the names of all. */
    run: (asked: { id: number; changed: typeof fed; names: readonly string[] }) => {
      for (const [name, value] of asked.changed) fed.set(name, value);
      const feeds = asked.names.map((name) => [name, fed.get(name)!] as const);
      return programs.get(asked.id)!.run(Object.fromEntries(feeds));
    },
    dispose: async (id: number) => programs.get(id)?.dispose(),
    close: async (_: undefined) => {
      await engine?.dispose();
      engine = undefined;
    },
  };
}

/** Computes for rank 0 until that ends; throws where it is lost, or has failed. */
export async function serveRank(launch: Launch, options: ServeOptions): Promise<void> {
  let end: (why: string | undefined) => void;
  const ended = new Promise<string | undefined>((resolve) => (end = resolve));
  const served = serving(options);
  const link = await openLink(
    launch,
    [0],
    {
      ...served,
      greet: (leader) => {
        link.known.set(0, leader);
        return served.greet(leader);
      },
      /** Why, where rank 0 failed. */
      end: async (why: string | undefined) => void setTimeout(end, 5, why),
    },
    options,
    ({ message }) => end(message),
  );
  const why = await ended;
  link.close(why === undefined);
  await served.close(undefined);
  if (why !== undefined)
    throw new UserError(`rank ${launch.rank} on ${hostname()} ends: ${why}`, { exitCode: 1 });
}
