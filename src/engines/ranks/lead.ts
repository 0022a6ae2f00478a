// Several ranks as one engine: rank 0 does the work as if it were alone, and the others compute for it. It adds results up
// in the order in which it asked for them, so that what comes out does not depend on how many ranks there are.

import { readFile } from "node:fs/promises";
import { hostname } from "node:os";
import { setTimeout as delay } from "node:timers/promises";
import { invariant, UserError } from "../../core/errors.ts";
import { flattened, leaves, type Outputs } from "../../graph/tensor.ts";
import type { Engine, Feeds, Weight } from "../engine.ts";
import { pooled } from "../pool.ts";
import { openLink } from "./link.ts";
import type { Launch } from "./mpi.ts";
import {
  fileReader,
  type ModelFile,
  type SentWeight,
  type ServeOptions,
  type Serving,
} from "./serve.ts";

export type Ranks = Awaited<ReturnType<typeof leadRanks>>;

/** Larger files must be where a rank finds them. */
const MOST_SENT = 2 ** 30;

/** Joins the other ranks, as rank 0. */
export async function leadRanks(
  launch: Launch,
  options: Pick<ServeOptions, "timeout" | "version">,
) {
  const others = Array.from({ length: launch.size - 1 }, (_, i) => i + 1);
  const held = new Set<(error: unknown) => void>();
  const stop = (error: unknown) => {
    for (const reject of held) reject(error);
  };
  const link = await openLink(launch, others, {}, options, stop);
  const ask: Ask = (to, op, asked) => link.ask(to, op, asked) as never;
  /** The wait for work, which ends where a rank is lost, or all is to stop. */
  const holding = <T>(work: Promise<T>) =>
    new Promise<T>((resolve, reject) => {
      if (link.lost()) return reject(link.lost());
      held.add(reject);
      work.finally(() => held.delete(reject)).then(resolve, reject);
    });
  const self = { host: hostname(), pid: process.pid };
  const hosts = [self.host];
  const greet = async (rank: number) => {
    const { version, ...of } = await ask(rank, "greet", self);
    link.known.set(rank, of);
    hosts[rank] = of.host;
    if (version !== options.version)
      throw new UserError(
        `${link.nameOf(rank)} has ssa ${version}, rank 0 has ${options.version}`,
        {
          hint: "install the same version for all ranks",
        },
      );
  };
  await Promise.all(others.map(greet));
  const shared = { ask, nameOf: link.nameOf, read: fileReader(), hasChanged: changes() };
  const ranksOn = (host: string) => hosts.filter((other) => other === host).length;
  return {
    hosts,
    /** How many share this process's machine. */
    ranksHere: ranksOn(self.host),
    /** Rank 0's engine and one like it on each other rank as one; a signal that aborts rejects what runs. */
    join: async (own: Engine, device: string, threads: number, signal?: AbortSignal) => {
      const join = async (rank: number) => {
        const asked = { device, threads, ranksHere: ranksOn(hosts[rank]!) };
        return remote(own, rank, await ask(rank, "open", asked), shared);
      };
      const engines: [Engine, ...Engine[]] = [own, ...(await Promise.all(others.map(join)))];
      const onAbort = () => stop(signal!.reason);
      signal?.addEventListener("abort", onAbort);
      const { dispose, ...engine } = pooled(engines, { here: 1, holding });
      const leave = () => signal?.removeEventListener("abort", onAbort);
      return { ...engine, dispose: () => dispose().finally(leave) };
    },
    /** Ends all ranks; `why` where rank 0 failed. */
    close: async (why = link.lost()?.message) => {
      const ended = Promise.allSettled(others.map((rank) => link.ask(rank, "end", why)));
      // Those that are left when one is lost hear of it in time, or by their own watch.
      await (why === undefined ? ended : Promise.race([ended, delay(1000)]));
      link.close(why === undefined);
    },
  };
}

/** Whether values are others than a rank was sent: they are overwritten in place. */
function changes() {
  const known = new Map<string, { bytes: Buffer; seenBy: Set<number> }>();
  return (name: string, { buffer, byteOffset, byteLength }: Feeds[string], rank: number) => {
    const bytes = Buffer.from(buffer, byteOffset, byteLength);
    let now = known.get(name);
    if (!now?.bytes.equals(bytes)) now = { bytes: Buffer.from(bytes), seenBy: new Set() };
    known.set(name, now);
    return now.seenBy.size < now.seenBy.add(rank).size;
  };
}

type Ask = <Op extends keyof Serving>(
  to: number,
  op: Op,
  asked: Parameters<Serving[Op]>[0],
) => ReturnType<Serving[Op]>;

interface Shared extends Pick<Awaited<ReturnType<typeof openLink>>, "nameOf"> {
  readonly ask: Ask;
  readonly read: ReturnType<typeof fileReader>;
  readonly hasChanged: ReturnType<typeof changes>;
}

/** The engine of another rank, for graphs that are cut as rank 0's own wants them. */
function remote(
  own: Engine,
  rank: number,
  opened: Awaited<ReturnType<Serving["open"]>>,
  { ask, nameOf, read, hasChanged }: Shared,
): Engine {
  let programs = 0;
  const run = (id: number, feeds: Feeds) => {
    const changed = Object.entries(feeds).filter(([name, feed]) => hasChanged(name, feed, rank));
    return ask(rank, "run", { id, changed: new Map(changed), names: Object.keys(feeds) });
  };
  /** Weights by where the rank has their files; of a file that it has nowhere, the bytes. */
  const bind = async (outputs: Outputs, weights: ReadonlyMap<string, Weight>) => {
    const names = [...leaves(outputs, "Parameter").keys()];
    const files = new Map<string, ModelFile>();
    for (const weight of names.map((name) => weights.get(name)))
      if (weight && "file" in weight && !files.has(weight.file))
        files.set(weight.file, (await read(weight.file))!);
    const bytes = new Map<string, Buffer>();
    for (const { path, size } of await ask(rank, "missing", [...files.values()])) {
      if (size > MOST_SENT)
        throw new UserError(`${nameOf(rank)} lacks ${path}, which is too large to be sent`, {
          hint: "bring the model to the same path, or into the hub's cache, of each machine",
        });
      bytes.set(path, await readFile(path));
    }
    const bound = names.map((name): [string, SentWeight] => {
      const weight = weights.get(name);
      invariant(weight, `parameter ${name} is not bound`);
      if (weight instanceof Uint8Array) return [name, weight];
      const { file, offset, byteLength } = weight;
      const sent = bytes.get(file)?.subarray(offset, offset + byteLength);
      return [name, sent ?? { sha256: files.get(file)!.sha256, offset, byteLength }];
    });
    return new Map(bound);
  };
  return {
    ...own,
    ...opened,
    compile: async (outputs, weights) => {
      const id = programs++;
      const bound = await bind(outputs, weights);
      await ask(rank, "compile", { id, graph: flattened(outputs), weights: bound });
      return { run: (feeds) => run(id, feeds), dispose: async () => ask(rank, "dispose", id) };
    },
    // Work that failed because the rank is lost has nothing to close there.
    dispose: () => ask(rank, "close", undefined).catch(() => undefined),
  };
}
