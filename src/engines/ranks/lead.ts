// Several ranks as one engine: rank 0 does the work as if it were alone, and the others compute for it. It adds results up
// in the order in which it asked for them, so that what comes out does not depend on how many ranks there are.

import { setTimeout as delay } from "node:timers/promises";
import { invariant, messageOf, UserError } from "../../core/errors.ts";
import { thisProcess } from "../../files/lock.ts";
import { readBytes } from "../../files/safetensors.ts";
import { flattened, leaves, type Outputs } from "../../graph/tensor.ts";
import type { Engine, Feeds, Program, Weight } from "../engine.ts";
import { sizeOf } from "../../core/shape.ts";
import { pooled } from "../pool.ts";
import { openSums, SHARED_VALUES, startOf } from "./sums.ts";
import { openLink, type Processes } from "./link.ts";
import type { Launch } from "./mpi.ts";
import { fileReader } from "./serve.ts";
import type { ModelFile, SentWeight, ServeOptions, Serving } from "./serve.ts";

export type Ranks = Awaited<ReturnType<typeof leadRanks>>;

type Served = Omit<Serving, "ended" | "lose">;
type Ask = <Op extends keyof Served>(
  to: number,
  op: Op,
  ...asked: Parameters<Served[Op]>
) => ReturnType<Served[Op]>;

/** Joins the other ranks, as rank 0. */
export async function leadRanks(
  launch: Launch,
  { timeout, version }: Pick<ServeOptions, "timeout" | "version">,
) {
  const others = Array.from({ length: launch.size - 1 }, (_, i) => i + 1);
  const held = new Set<(error: unknown) => void>();
  const stop = (error: unknown) => held.forEach((reject) => reject(error));
  const self = await thisProcess();
  const known: Processes = new Map();
  const sums = openSums(launch, (to, part) => ask(to, "add", part));
  const served = { piece: readBytes, add: sums.add };
  const link = await openLink(launch, others, served, { known, timeout }, stop);
  const ask: Ask = (to, op, ...asked) => link.ask(to, op, asked[0]) as never;
  /** The wait for work, which ends where a rank is lost, or all is to stop. */
  const holding = <T>(work: Promise<T>) =>
    new Promise<T>((resolve, reject) => {
      if (link.lost()) reject(link.lost());
      held.add(reject);
      work.finally(() => held.delete(reject)).then(resolve, reject);
    });
  for (const rank of others) {
    const { version: its, ...process } = await ask(rank, "greet", self);
    known.set(rank, process);
    if (its !== version)
      throw new UserError(`${link.nameOf(rank)} has ssa ${its}, rank 0 has ${version}`, {
        hint: "install the same version for all ranks",
      });
  }
  const hosts = [self, ...known.values()].map(({ host }) => host);
  const ranksOn = (host: string | undefined) => hosts.filter((other) => other === host).length;
  const [read, hasChanged] = [fileReader(), changes()];

  /** Weights by where a rank has their files. */
  const bind = async (rank: number, outputs: Outputs, weights: ReadonlyMap<string, Weight>) => {
    const files = new Map<string, ModelFile>();
    const bound = new Map<string, SentWeight>();
    for (const name of leaves(outputs, "Parameter").keys()) {
      const weight = weights.get(name);
      invariant(weight, `parameter ${name} is not bound`);
      if (weight instanceof Uint8Array) {
        bound.set(name, weight);
        continue;
      }
      const { file, offset, byteLength } = weight;
      if (!files.has(file)) files.set(file, (await read(file))!);
      bound.set(name, { sha256: files.get(file)!.sha256, offset, byteLength });
    }
    await ask(rank, "need", [...files.values()]);
    return bound;
  };
  let spreading: Promise<unknown> = Promise.resolve();
  /** Of large feeds that changed, each other rank gets a part and hands it on: no link carries more than the whole. */
  const spread = (feeds: Feeds) => {
    const changed = Object.entries(feeds).filter(
      ([name, feed]) => isShared(feed) && hasChanged(name, feed, 0),
    );
    const parts = changed.flatMap(([name, feed]) =>
      others.map((rank, i) => {
        const [from, to] = [i, i + 1].map((at) => startOf(at, others.length, feed.length));
        const values = feed.subarray(from, to) as Float32Array;
        const rest = others.filter((other) => other !== rank);
        return { rank, feed: { name, length: feed.length, from: from!, values, others: rest } };
      }),
    );
    if (parts.length > 0)
      spreading = Promise.all(parts.map(({ rank, feed }) => ask(rank, "feed", feed)));
    return spreading;
  };
  /** Rank 0's own engine, which adds its part of sums. */
  const adding = (own: Engine): Engine => {
    let programs = 0;
    const compile: Engine["compile"] = async (...given) => {
      const id = programs++;
      sums.begin(id);
      const { run, dispose } = await own.compile(...given);
      const added: Program["run"] = async (feeds, adding) => {
        const results = await run(feeds);
        return adding ? sums.share(id, results, adding) : results;
      };
      return { run: added, dispose };
    };
    return { ...own, compile };
  };
  /** A program whose large sums can be taken from all ranks. */
  const takable = (program: Program, id: number, outputs: Outputs): Program => {
    const size = (name: string) => sizeOf(outputs[name]!.shape);
    const length = (names: readonly string[]) => names.reduce((sum, name) => sum + size(name), 0);
    if (length(Object.keys(outputs)) < SHARED_VALUES) return program;
    const take = async (names: readonly string[]) => {
      const theirs = others.map((rank) => ask(rank, "take", id));
      const whole = new Float32Array(new SharedArrayBuffer(4 * length(names)));
      let at = 0;
      for (const part of await Promise.all([sums.take(id), ...theirs])) {
        whole.set(part, at);
        at += part.length;
      }
      at = 0;
      const next = (name: string) => whole.subarray(at, (at += size(name)));
      return Object.fromEntries(names.map((name) => [name, next(name)]));
    };
    return { ...program, take };
  };
  /** The engine of another rank, for graphs that are cut as rank 0's own wants them. */
  const remote = async (own: Engine, rank: number, device: string, threads: number) => {
    const ranksHere = ranksOn(known.get(rank)!.host);
    const opened = await ask(rank, "open", { device, threads, ranksHere });
    let programs = 0;
    const compile: Engine["compile"] = async (outputs, weights) => {
      const id = programs++;
      const bound = await bind(rank, outputs, weights);
      await ask(rank, "compile", { id, graph: flattened(outputs), weights: bound });
      const run: Program["run"] = async (feeds, adding) => {
        const names = Object.keys(feeds);
        await spread(feeds);
        const changed = Object.entries(feeds).filter(
          ([name, feed]) => !isShared(feed) && hasChanged(name, feed, rank),
        );
        return ask(rank, "run", { id, changed: new Map(changed), names, adding });
      };
      return { run, dispose: async () => ask(rank, "dispose", id) };
    };
    // Work that failed because the rank is lost has nothing to close there.
    const dispose = () => ask(rank, "close").catch(() => undefined);
    return { ...own, ...opened, compile, dispose };
  };
  return {
    hosts,
    /** How many share this process's machine. */
    ranksHere: ranksOn(self.host),
    /** Rank 0's engine and one like it on each other rank as one; a signal that aborts rejects what runs. */
    join: async (own: Engine, device: string, threads: number, signal?: AbortSignal) => {
      const theirs = await Promise.all(others.map((rank) => remote(own, rank, device, threads)));
      const onAbort = () => stop(signal!.reason);
      signal?.addEventListener("abort", onAbort);
      const pool = pooled([adding(own), ...theirs], { here: 1, holding });
      const leave = () => signal?.removeEventListener("abort", onAbort);
      let programs = 0;
      const compile: Engine["compile"] = async (outputs, weights) => {
        const id = programs++;
        return takable(await pool.compile(outputs, weights), id, outputs);
      };
      return { ...pool, compile, dispose: () => pool.dispose().finally(leave) };
    },
    /** Ends all ranks, with the error where rank 0 failed. */
    close: async (error: unknown = link.lost()) => {
      const exitCode = error instanceof UserError ? error.exitCode : 1;
      const failure = error === undefined ? undefined : { why: messageOf(error), exitCode };
      const ended = Promise.allSettled(others.map((rank) => ask(rank, "end", failure)));
      await (failure ? Promise.race([ended, delay(1000)]) : ended);
      await link.close(!failure);
    },
  };
}

const isShared = (feed: Feeds[string]) =>
  feed instanceof Float32Array && feed.length >= SHARED_VALUES;

/** Whether a rank was sent other values than these: they are overwritten in place. */
function changes() {
  const known = new Map<string, { bytes: Buffer; seenBy: Set<number> }>();
  return (name: string, { buffer, byteOffset, byteLength }: Feeds[string], rank: number) => {
    const bytes = Buffer.from(buffer, byteOffset, byteLength);
    let now = known.get(name);
    if (now?.bytes.length !== byteLength) now = { bytes: Buffer.from(bytes), seenBy: new Set() };
    else if (!now.bytes.equals(bytes)) {
      bytes.copy(now.bytes);
      now.seenBy.clear();
    }
    known.set(name, now);
    return now.seenBy.size < now.seenBy.add(rank).size;
  };
}
