// The memory estimate: a graph small enough to count by hand, and what recomputation saves.

import assert from "node:assert/strict";
import { test } from "node:test";
import { openModel } from "../../src/model/open.ts";
import { exp, input, mul, parameter, reduceSum, reshape, tanh } from "../../src/graph/build.ts";
import { peakBytes as peakBytesOf } from "../../src/engines/counts.ts";
import { runOrderOf } from "../../src/engines/onnx/order.ts";
import type { Outputs } from "../../src/graph/tensor.ts";
import { buildTrainingGraph } from "../../src/train/step.ts";
import { fixture } from "../export/fixture.ts";

const peakBytes = (outputs: Outputs) =>
  peakBytesOf(runOrderOf(outputs), outputs, { overwrites: true });

test("values are held until their last use, and written over where they may be", () => {
  const x = input("x", [100], "F32");
  const a = exp(x); // 400 bytes, since inputs are not written over
  assert.equal(peakBytes({ a }), 400);
  assert.equal(peakBytes({ y: tanh(a) }), 400);
  assert.equal(peakBytes({ y: reshape(tanh(a), [10, 10]) }), 400);
  // tanh(a) cannot lie in a, which the product needs too; the product lies in one of them.
  assert.equal(peakBytes({ y: mul(a, tanh(a)) }), 800);
  assert.equal(peakBytes({ sum: reduceSum(mul(a, tanh(a)), [0]) }), 800);
  // An output stays to the end.
  assert.equal(peakBytes({ a, y: tanh(a) }), 800);
  // A parameter is not counted, what is made of it and the input is.
  assert.equal(peakBytes({ y: mul(x, parameter("w", [3, 100])) }), 1200);
});

test("recomputing holds less", async () => {
  const opened = await openModel(fixture("gpt2").model);
  const names = [...opened.model.weights.keys()].filter((name) => name.includes("ln_"));
  const peak = (recompute: "nothing" | "cheap" | "blocks") =>
    peakBytes(buildTrainingGraph(opened, { batchSize: 2, context: 16 }, names, { recompute }));
  assert.ok(peak("nothing") > peak("cheap"));
  assert.ok(peak("cheap") > peak("blocks"));
});
