// A rank that computes for rank 0: it holds the weights, gets values and tokens, and gives results.

import { basename } from "node:path";
import { UserError } from "../../core/errors.ts";
import { replaceFile, statIfPresent } from "../../files/atomic.ts";
import { thisProcess, withLock } from "../../files/lock.ts";
import { sha256OfFile } from "../../files/safetensors.ts";
import { type flattened, rebuilt } from "../../graph/tensor.ts";
import type { Adding, Engine, Feeds, Program, Weight } from "../engine.ts";
import { openEngine } from "../index.ts";
import { type Link, openLink, type Processes } from "./link.ts";
import type { Launch } from "./mpi.ts";
import { openSums, type Sums } from "./sums.ts";

export interface ServeOptions {
  /** Seconds without a sign of life after which a rank counts as lost. */
  readonly timeout: number;
  /** Of this program. */
  readonly version: string;
  /** CUDA_VISIBLE_DEVICES. */
  readonly visibleCards?: string | undefined;
  /** Where a model's file may lie under its SHA-256, as in the hub's cache; the first is where one is kept that came from rank 0. */
  readonly blobs: (sha256: string) => readonly [string, ...string[]];
  readonly onNote: (note: string) => void;
}

export type ModelFile = Readonly<{ path: string; size: number; sha256: string }>;
/** Bytes, or where they are in a file. */
export type SentWeight =
  | Uint8Array
  | Readonly<{ sha256: string; offset: number; byteLength: number }>;

/** Bytes of a file that are in memory at a time. */
const PIECE = 2 ** 26;

/** Of rank 0. */
type Failure = Readonly<{ why: string; exitCode: 1 | 2 }>;

interface Run {
  readonly id: number;
  /** Of the feeds, those that are others than before; and the names of all. */
  readonly changed: ReadonlyMap<string, Feeds[string]>;
  readonly names: readonly string[];
  readonly adding: Adding | undefined;
}

interface Feed {
  readonly name: string;
  readonly length: number;
  readonly from: number;
  readonly values: Float32Array;
  readonly others: readonly number[];
}

interface Compiled {
  readonly id: number;
  readonly graph: ReturnType<typeof flattened>;
  readonly weights: ReadonlyMap<string, SentWeight>;
}

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

function serving(
  { version, visibleCards, blobs, onNote }: ServeOptions,
  ranks: Processes,
  sums: Sums,
  ask: Link["ask"],
) {
  const read = fileReader();
  const find = async ({ size, sha256 }: ModelFile, paths: readonly string[]) => {
    for (const path of paths) if ((await read(path, size))?.sha256 === sha256) return path;
    return undefined;
  };
  /** Gets a file from rank 0; of several ranks on a machine one does. */
  const get = (file: ModelFile) => {
    const { path, size } = file;
    const [kept] = blobs(file.sha256);
    return withLock(`${kept}.lock`, async () => {
      if (await find(file, [kept])) return kept;
      onNote(`gets ${path} (${size} bytes) from rank 0, into ${kept}`);
      await replaceFile(kept, async (handle) => {
        for (let offset = 0; offset < size; offset += PIECE) {
          const byteLength = Math.min(PIECE, size - offset);
          const piece = { file: path, name: basename(path), offset, byteLength };
          await handle.writeFile((await ask(0, "piece", piece)) as Uint8Array);
        }
      });
      if (await find(file, [kept])) return kept;
      throw new UserError(`${path} changed while it was sent`, {
        hint: "start again",
        exitCode: 1,
      });
    });
  };
  /** Files by SHA-256, what runs are fed by name, and programs by the number that rank 0 gave them. */
  const files = new Map<string, string>();
  const fed = new Map<string, Feeds[string]>();
  const programs = new Map<number, Program>();
  let engine: Engine | undefined;
  let end: (failure?: Failure) => void;
  const ended = new Promise<Failure | undefined>((resolve) => (end = resolve));
  const answers = {
    greet: async (leader: Awaited<ReturnType<typeof thisProcess>>) => {
      ranks.set(0, leader);
      return { version, ...(await thisProcess()) };
    },
    open: async (asked: { device: string; threads: number; ranksHere: number }) => {
      const { device, ...options } = asked;
      engine = await openEngine(device, { ...options, visibleCards });
      const { description, precisions, lanes, deviceFree } = engine;
      onNote(`computes on ${description}`);
      return { description, precisions, lanes, deviceFree };
    },
    /** Looks for these files; what is nowhere here comes from rank 0. */
    need: async (asked: readonly ModelFile[]) => {
      for (const file of asked) {
        const { path, sha256 } = file;
        const found = files.get(sha256) ?? (await find(file, [path, ...blobs(sha256)]));
        files.set(sha256, found ?? (await get(file)));
      }
    },
    compile: async ({ id, graph, weights }: Compiled) => {
      const bound = [...weights].map(([name, weight]): [string, Weight] => {
        if (weight instanceof Uint8Array) return [name, weight];
        const { sha256, offset, byteLength } = weight;
        return [name, { file: files.get(sha256)!, offset, byteLength }];
      });
      sums.begin(id);
      programs.set(id, await engine!.compile(rebuilt(graph), new Map(bound)));
    },
    run: async ({ id, changed, names, adding }: Run) => {
      for (const [name, value] of changed) fed.set(name, value);
      const feeds = names.map((name) => [name, fed.get(name)!] as const);
      const results = await programs.get(id)!.run(Object.fromEntries(feeds));
      return adding ? sums.share(id, results, adding) : results;
    },
    add: sums.add,
    take: sums.take,
    /** A part of a feed, which the first rank that gets it hands on. */
    feed: async ({ name, length, from, values, others }: Feed) => {
      const known = fed.get(name);
      const whole = known?.length === length ? known : new Float32Array(length);
      (whole as Float32Array).set(values, from);
      fed.set(name, whole);
      const next = { name, length, from, values, others: [] };
      await Promise.all(others.map((to) => ask(to, "feed", next)));
    },
    dispose: async (id: number) => {
      await programs.get(id)?.dispose();
      programs.delete(id);
    },
    close: async () => engine?.dispose(),
    /** Once the answer has left; after a failure when rank 0 has told it, for some launchers end all ranks with the first. */
    end: async (failure?: Failure) => void setTimeout(end, failure ? 300 : 5, failure),
  };
  return { ...answers, ended, lose: ({ message }: Error) => end({ why: message, exitCode: 1 }) };
}

/** Computes for rank 0 until that ends; throws where it is lost, or has failed. */
export async function serveRank(launch: Launch, options: ServeOptions): Promise<void> {
  const known: Processes = new Map();
  const ask: Link["ask"] = (...asked) => link.ask(...asked);
  const sums = openSums(launch, (to, part) => ask(to, "add", part));
  const { ended, lose, ...served } = serving(options, known, sums, ask);
  const link: Link = await openLink(launch, [0], served, { ...options, known }, lose);
  const failure = await ended;
  await link.close(!failure);
  if (!failure) return;
  await served.close();
  const { host } = await thisProcess();
  const { why, exitCode } = failure;
  throw new UserError(`rank ${launch.rank} on ${host} ends: ${why}`, { exitCode });
}
