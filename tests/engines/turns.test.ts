// Programs that take turns: only one is held, and each run gives what it would without turns; and runs that go on side
// by side, whose results are taken in order.

import assert from "node:assert/strict";
import { test } from "node:test";
import { setTimeout } from "node:timers/promises";
import { type Engine, type Program, takingTurns } from "../../src/engines/index.ts";
import { inOrder } from "../../src/engines/pool.ts";
import { pooled } from "../../src/engines/pool.ts";
import { smallTiles } from "../../src/nn/tiling.ts";
import { exp, input } from "../../src/graph/build.ts";
import type { Outputs } from "../../src/graph/tensor.ts";

/** An engine that computes nothing and says what it holds. */
function engineHolding(held: Set<string>): Engine {
  return {
    description: "counts",
    precisions: ["fp32"],
    mapsWeights: true,
    lanes: 1,
    tiling: smallTiles,
    room: { host: 0, device: 0 },
    estimate: () => assert.fail("nobody asks"),
    compile: async (outputs) => {
      const [name] = Object.keys(outputs) as [string];
      assert.ok(!held.has(name), `${name} is compiled twice`);
      held.add(name);
      return {
        run: async () => {
          assert.ok(held.has(name), `${name} runs after it is released`);
          return { [name]: new Float32Array([1]) };
        },
        dispose: async () => {
          assert.ok(held.delete(name), `${name} is released twice`);
        },
      };
    },
    dispose: async () => undefined,
  };
}

const graph = (name: string): Outputs => ({ [name]: exp(input("x", [1], "F32")) });

test("only the program that ran last is held", async () => {
  const held = new Set<string>();
  const engine = takingTurns(engineHolding(held));
  const a = await engine.compile(graph("a"), new Map());
  assert.deepEqual([...held], ["a"]);
  const b = await engine.compile(graph("b"), new Map());
  assert.deepEqual([...held], ["b"]);
  for (const [name, program] of [
    ["b", b],
    ["a", a],
    ["a", a],
    ["b", b],
    ["a", a],
  ] as const) {
    const results = await program.run({});
    assert.deepEqual(Object.keys(results), [name]);
    assert.deepEqual([...held], [name]);
  }
  await b.dispose();
  assert.deepEqual([...held], ["a"]);
  await a.dispose();
  assert.deepEqual([...held], []);
});

test("a program that cannot be compiled leaves the others able to run", async () => {
  const held = new Set<string>();
  const inner = engineHolding(held);
  const engine = takingTurns({
    ...inner,
    compile: (outputs, weights) =>
      "bad" in outputs ? Promise.reject(new Error("no")) : inner.compile(outputs, weights),
  });
  const a = await engine.compile(graph("a"), new Map());
  await assert.rejects(engine.compile(graph("bad"), new Map()), { message: "no" });
  await a.run({});
  assert.deepEqual([...held], ["a"]);
});

test("runs asked for at once take turns, too", async () => {
  const held = new Set<string>();
  const engine = takingTurns(engineHolding(held));
  const a = await engine.compile(graph("a"), new Map());
  await engine.compile(graph("b"), new Map());
  await Promise.all([a.run({}), a.run({})]);
  assert.deepEqual([...held], ["a"]);
});

test("results are taken in order, before what overwrites them begins, and nothing goes on behind an error", async () => {
  const lanes = [0, 1, 2].map(() => ({ value: -1, isBusy: false }));
  let started = 0;
  const run = async (item: number) => {
    const lane = lanes[started++ % lanes.length]!;
    assert.ok(!lane.isBusy, "one run at a time on each");
    lane.isBusy = true;
    await setTimeout((item * 7) % 5);
    lane.isBusy = false;
    lane.value = item;
    if (item === 90) throw new Error("no");
    return lane;
  };
  const taken: number[] = [];
  const items = Array.from({ length: 20 }, (_, i) => i);
  await inOrder(items, lanes.length, run, ({ value }, i) => void taken.push(value, i));
  assert.deepEqual(
    taken,
    items.flatMap((item) => [item, item]),
  );
  started = 0;
  await assert.rejects(
    inOrder([90, 1, 2, 3], lanes.length, run, () => undefined),
    { message: "no" },
  );
  assert.ok(lanes.every(({ isBusy }) => !isBusy) && started === 3);
});

test("a fast lane goes on while a slow one computes; results come in order, and no more than may wait", async () => {
  const done = [0, 0];
  const lane = (i: number, milliseconds: number): Engine => ({
    ...engineHolding(new Set()),
    compile: async () => {
      const x = new Float32Array(1); // overwritten by each run
      const run: Program["run"] = async (feeds) => {
        await setTimeout(milliseconds);
        done[i]!++;
        x[0] = (feeds["x"] as Float32Array)[0]!;
        return { x };
      };
      return { run, dispose: async () => undefined };
    },
  });
  const engine = pooled([lane(0, 90), lane(1, 15)]);
  const program = await engine.compile(graph("x"), new Map());
  const items = Array.from({ length: 36 }, (_, i) => i);
  const taken: number[] = [];
  const run = (item: number) => program.run({ x: Float32Array.of(item) });
  await inOrder(items, program.ahead!, run, ({ x }) => void taken.push(x![0]!));
  assert.deepEqual(taken, items);
  // Six to one, but for what is not known at first.
  assert.ok(done[0]! >= 3 && done[0]! <= 7, done.join());

  // What a slow lane would end last is left to the fast one.
  done.fill(0);
  await inOrder([1, 2, 3], program.ahead!, run, () => undefined);
  assert.deepEqual(done, [0, 3]);
  await program.dispose();

  const large = { x: exp(input("x", [2 ** 26], "F32")) };
  assert.equal((await engine.compile(large, new Map())).ahead, 2);
});
