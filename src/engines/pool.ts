// Several engines as one, whose runs go on side by side; and programs of one engine that take turns in memory, so that a
// process needs room for the largest and not for all.

import type { Engine, Program, Results } from "./engine.ts";

/**
 * Engines of one kind: each compiles every program, and runs go round among their lanes. What they compute does not depend
 * on how many they are: whoever adds results up takes them in the order in which the runs were asked for. `here` of them,
 * the first ones, share this process's memory; `holding` may end the wait for a run before it.
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
      let runs = 0;
      return {
        run: (feeds) => holding(programs[lanes[runs++ % lanes.length]!]!.run(feeds)),
        dispose: async () => void (await all(programs.map((program) => program.dispose()))),
      };
    },
    dispose: async () => void (await all(engines.map((engine) => engine.dispose()))),
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
      await own;
      return {
        run: async (feeds) => {
          if (resident !== own) own = enter();
          return (await own).run(feeds);
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
