// The reverse sweep: what it builds, what it leaves out, and how contributions add up.

import assert from "node:assert/strict";
import { test } from "node:test";
import { openEngine } from "../../src/engines/index.ts";
import { gradients } from "../../src/graph/autodiff.ts";
import * as g from "../../src/graph/build.ts";
import type { OpType } from "../../src/graph/ops.ts";
import { type Tensor, topologicalOrder } from "../../src/graph/tensor.ts";

const x = g.input("x", [2, 3], "F32");
const w = g.input("w", [3, 4], "F32");

const count = (roots: readonly Tensor[], op: OpType) =>
  topologicalOrder(roots).filter((tensor) => tensor.op === op).length;

/** A chain of products with one trained scale at a given depth. */
function chain(trainedAt: number) {
  const trained = g.input("trained", [3, 1], "F32");
  let y: Tensor = g.input("start", [3, 3], "F32");
  for (let layer = 0; layer < 4; layer++) {
    y = g.matMul(g.parameter(`layer${layer}`, [3, 3]), y);
    if (layer === trainedAt) y = g.mul(y, trained);
  }
  return { y, trained };
}

test("frozen weights get no gradient, and layers below the lowest trained tensor no backward pass", () => {
  for (const trainedAt of [0, 1, 2, 3]) {
    const { y, trained } = chain(trainedAt);
    const grads = gradients(y, [trained]);
    // The layers above pass the cotangent down with one product each; the layers up to `trained` run forward.
    assert.equal(count(grads, "MatMul"), trainedAt + 1 + (3 - trainedAt));
  }
});

test("a forward value that no gradient needs is not computed", () => {
  const bias = g.input("bias", [4], "F32");
  const y = g.add(g.tanh(g.matMul(x, w)), g.exp(bias));
  const [dBias] = gradients(y, [bias]);
  assert.equal(count([dBias!], "Exp"), 1); // its own derivative
  assert.equal(count([dBias!], "Tanh") + count([dBias!], "MatMul") + count([dBias!], "Add"), 0);
});

test("gradients have the shapes and the order of what they are asked for", () => {
  const bias = g.input("bias", [4], "F32");
  const scalar = g.input("scalar", [], "F32");
  const y = g.mul(g.add(g.matMul(x, w), bias), scalar);
  const asked = [scalar, w, bias, x];
  assert.deepEqual(
    gradients(y, asked).map((grad) => grad.shape),
    asked.map(({ shape }) => shape),
  );
});

test("the gradient of a tensor with respect to itself is one", () => {
  const [dx] = gradients(x, [x]);
  assert.equal(dx!.op, "Expand");
  assert.deepEqual(dx!.shape, x.shape);
});

test("an intermediate value can be asked for", () => {
  const hidden = g.tanh(x);
  const [dHidden] = gradients(g.mul(hidden, hidden), [hidden]);
  assert.equal(count([dHidden!], "Tanh"), 1);
  assert.deepEqual(dHidden!.shape, [2, 3]);
});

test("uses of one tensor add up", async () => {
  // y = x² + 3x + x·exp(0·x) at x = 2: y' = 2x + 3 + 1
  const at = g.input("at", [1], "F32");
  const y = g.add(g.add(g.mul(at, at), g.scale(at, 3)), g.mul(at, g.exp(g.scale(at, 0))));
  const [gradient] = gradients(y, [at]);
  const engine = await openEngine("cpu", { threads: 1 });
  const program = await engine.compile({ gradient: gradient! }, new Map());
  const results = await program.run({ at: Float32Array.of(2) });
  assert.deepEqual(results["gradient"], Float32Array.of(8));
  await engine.dispose();
});

test("a tensor that does not reach the output is refused", () => {
  assert.throws(() => gradients(g.exp(x), [w]), /internal: Input does not reach the output/);
});

test("thousands of nodes deep", () => {
  let y: Tensor = x;
  for (let i = 0; i < 20_000; i++) y = g.neg(y);
  assert.equal(count(gradients(y, [x]), "Neg"), 20_000);
});
