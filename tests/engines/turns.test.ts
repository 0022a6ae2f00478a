// Programs that take turns: only one is held, and each run gives what it would without turns.

import assert from "node:assert/strict";
import { test } from "node:test";
import { type Engine, takingTurns } from "../../src/engines/index.ts";
import { smallTiles } from "../../src/nn/tiling.ts";
import { exp, input } from "../../src/graph/build.ts";
import type { Outputs } from "../../src/graph/tensor.ts";

/** An engine that computes nothing and says what it holds. */
function engineHolding(held: Set<string>): Engine {
  return {
    description: "counts",
    precisions: ["fp32"],
    mapsWeights: true,
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
