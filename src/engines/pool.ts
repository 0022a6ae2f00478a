// Several engines as one, whose runs go on side by side; and programs of one engine that take turns in memory, so that a
// process needs room for the largest and not for all.

import { sizeOf } from "../core/shape.ts";
import type { Outputs } from "../graph/tensor.ts";
import type { Engine, Program, Results } from "./engine.ts";

/**
 * Engines of one kind: each compiles every program, and runs are dealt to their lanes. What they compute does not depend
 * on how many they are, nor how fast: whoever adds results up takes them in the order in which the runs were asked for.
 * `here` of them, the first ones, share this process's memory; `holding` may end the wait for a run before it.
 */
export function pooled(
  engines: readonly [Engine, ...Engine[]],
  { here = engines.length, holding = (run) => run }: PoolOptions = {},
): Engine {
  const [{ estimate, room, ...first }] = engines;
  const free = engines.flatMap(({ deviceFree }) => deviceFree ?? []);
  /** Of each lane, the place of its engine. */
  const lanes = engines.flatMap(({ lanes }, i) => Array.from({ length: lanes }, () => i));
  const names = [...new Set(engines.map(({ description }) => description))];
  const count = names.length < engines.length ? `${engines.length} × ` : "";
  return {
    ...first,
    description: count + names.join(", "),
    precisions: first.precisions.filter((name) =>
      engines.every(({ precisions }) => precisions.includes(name)),
    ),
    lanes: lanes.length,
    // Each device has its own memory.
    room: { ...room, host: here * room.host },
    deviceFree: free.length < engines.length ? undefined : Math.min(...free),
    estimate: (outputs) => {
      const { host, device } = estimate(outputs);
      return { host: here * host, device };
    },
    compile: async (outputs, weights) => {
      const programs = await all(engines.map((engine) => engine.compile(outputs, weights)));
      const deal = dealer(lanes.map((engine) => programs[engine]!));
      const ahead = aheadFor(outputs, lanes.length);
      let runs = 0;
      const run: Program["run"] = (...asked) =>
        ahead > 1 ? deal.run(...asked) : programs[lanes[runs++ % lanes.length]!]!.run(...asked);
      return {
        ahead: ahead * lanes.length,
        run: (...asked) => holding(run(...asked)).catch(deal.stop),
        dispose: async () => void (await all(programs.map((program) => program.dispose()))),
      };
    },
    dispose: async () => void (await all(engines.map((engine) => engine.dispose()))),
  };
}

/** What results may take that wait for their turn, and how many of a lane may. */
const WAITING_BYTES = 2 ** 28;
const MOST_AHEAD = 4;

/** Of each lane, how many results there may be at a time; 1: they lie where the lane's next run overwrites them. */
function aheadFor(outputs: Outputs, lanes: number) {
  const values = Object.values(outputs).reduce((sum, { shape }) => sum + sizeOf(shape), 0);
  const room = Math.floor(WAITING_BYTES / (4 * values * lanes));
  return Math.max(1, Math.min(MOST_AHEAD, room));
}

/**
 * Gives each run that waits to the lane that is likely to end it first, by what its last ones took: a fast lane goes on
 * while a slow one computes, and a slow one does not take what fast ones would end before it. Results are copies.
 */
function dealer(programs: readonly Program[]) {
  const lanes = programs.map((program) => {
    return { program, isBusy: false, startedAt: 0, milliseconds: 1 };
  });
  type Turn = Readonly<{
    asked: Parameters<Program["run"]>;
    resolve: (results: Results) => void;
    reject: (error: unknown) => void;
  }>;
  const waiting: Turn[] = [];
  const start = async (lane: (typeof lanes)[number], { asked, resolve, reject }: Turn) => {
    Object.assign(lane, { isBusy: true, startedAt: performance.now() });
    try {
      const results = Object.entries(await lane.program.run(...asked));
      resolve(Object.fromEntries(results.map(([name, values]) => [name, values.slice()])));
    } catch (error) {
      reject(error);
    }
    const took = performance.now() - lane.startedAt;
    Object.assign(lane, { isBusy: false, milliseconds: (lane.milliseconds + took) / 2 });
    deal();
  };
  const deal = () => {
    const now = performance.now();
    // One at work is not waited for as if it ended at once, however late it is.
    const free = lanes.map(({ isBusy, startedAt, milliseconds }) =>
      isBusy ? Math.max(now + milliseconds / 2, startedAt + milliseconds) : now,
    );
    for (let left = waiting.length; left > 0; left--) {
      const ends = lanes.map(({ milliseconds }, i) => free[i]! + milliseconds);
      const first = ends.indexOf(Math.min(...ends));
      free[first] = ends[first]!;
      if (!lanes[first]!.isBusy) void start(lanes[first]!, waiting.shift()!);
    }
  };
  return {
    run: (...asked: Parameters<Program["run"]>) =>
      new Promise<Results>((resolve, reject) => {
        waiting.push({ asked, resolve, reject });
        deal();
      }),
    /** Nothing that waits goes on behind an error. */
    stop: (error: unknown): never => {
      for (const { reject } of waiting.splice(0)) reject(error);
      throw error;
    },
  };
}

interface PoolOptions {
  readonly here?: number;
  readonly holding?: (run: Promise<Results>) => Promise<Results>;
}

/** Of all when all have ended: nothing goes on behind an error. */
async function all<T>(work: readonly Promise<T>[]): Promise<T[]> {
  await Promise.allSettled(work);
  return Promise.all(work);
}

/**
 * Starts a run for each item, as many at a time as there are lanes, and takes their results in the items' order, each
 * before the run that overwrites it starts.
 */
export async function inOrder<Item, Result>(
  items: Iterable<Item>,
  lanes: number,
  run: (item: Item) => Promise<Result>,
  take: (result: Result, index: number) => void | Promise<void>,
): Promise<void> {
  const running: Promise<Result>[] = [];
  let taken = 0;
  const takeNext = async () => take(await running.shift()!, taken++);
  try {
    for (const item of items) {
      if (running.length === lanes) await takeNext();
      const started = run(item);
      started.catch(() => undefined); // until its turn comes
      running.push(started);
    }
    while (running.length > 0) await takeNext();
  } finally {
    await Promise.allSettled(running);
  }
}

/**
 * The engine, holding only the program that ran last: another's weights and activations are released first, and it is
 * compiled again when it runs. Worth it where runs come in long rows. `compile` itself shows that a program can be had.
 */
export function takingTurns(engine: Engine): Engine {
  let resident: Promise<Program> | undefined;
  const release = async (last: Promise<Program> | undefined) =>
    (await last?.catch(() => undefined))?.dispose();
  return {
    ...engine,
    compile: async (outputs, weights) => {
      const enter = () => {
        const last = resident;
        return (resident = release(last).then(() => engine.compile(outputs, weights)));
      };
      let own = enter();
      const { ahead, take } = await own;
      return {
        ahead,
        take: take && (async (names) => (await own).take!(names)),
        run: async (...asked) => {
          if (resident !== own) own = enter();
          return (await own).run(...asked);
        },
        dispose: async () => {
          if (resident !== own) return;
          resident = undefined;
          await release(own);
        },
      };
    },
  };
}
