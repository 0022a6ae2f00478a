// The loss in chunks, and its gradient, against the plain formula over the whole vocabulary.

import assert from "node:assert/strict";
import { test } from "node:test";
import { createRandom } from "../../src/core/random.ts";
import { openEngine } from "../../src/engines/index.ts";
import { gradients } from "../../src/graph/autodiff.ts";
import { input, parameter } from "../../src/graph/build.ts";
import { topologicalOrder } from "../../src/graph/tensor.ts";
import { tokenScores } from "../../src/nn/loss.ts";
import { allClose } from "../helpers.ts";

const [batch, length, width, vocabulary] = [3, 200, 6, 11]; // 600 rows: three chunks, the last one short
const rows = batch * length;
const random = createRandom(17);
const normal = (size: number, factor = 1) =>
  Float32Array.from({ length: size }, () => factor * random.normal());

test("nats and their gradients equal the formula across chunks", async () => {
  const [hidden, head] = [normal(rows * width, 2), normal(vocabulary * width)];
  const labels = BigInt64Array.from({ length: rows }, () =>
    BigInt(Math.floor(vocabulary * random.uniform())),
  );
  const x = input("hidden", [batch, length, width], "F32");
  const w = input("head", [vocabulary, width], "F32");
  const { nats } = tokenScores(x, w, input("labels", [batch, length], "I64"));
  const [dHidden, dHead] = gradients(nats, [x, w]);
  const engine = await openEngine("cpu", { threads: 1 });
  const program = await engine.compile({ nats, dHidden: dHidden!, dHead: dHead! }, new Map());
  const results = await program.run({ hidden, head, labels });

  const expected = { nats: new Float64Array(rows), hidden: new Float64Array(rows * width) };
  const expectedHead = new Float64Array(vocabulary * width);
  for (let row = 0; row < rows; row++) {
    const dot = (v: number) => {
      let sum = 0;
      for (let i = 0; i < width; i++) sum += hidden[row * width + i]! * head[v * width + i]!;
      return sum;
    };
    const logits = Array.from({ length: vocabulary }, (_, v) => dot(v));
    const label = Number(labels[row]);
    const normalizer = logits.reduce((sum, logit) => sum + Math.exp(logit), 0);
    expected.nats[row] = Math.log(normalizer) - logits[label]!;
    logits.forEach((logit, v) => {
      const error = Math.exp(logit) / normalizer - (v === label ? 1 : 0); // softmax - one-hot
      for (let i = 0; i < width; i++) {
        expected.hidden[row * width + i]! += error * head[v * width + i]!;
        expectedHead[v * width + i]! += error * hidden[row * width + i]!;
      }
    });
  }
  allClose(results["nats"]!, expected.nats, { atol: 1e-5 });
  allClose(results["dHidden"]!, expected.hidden, { atol: 1e-5 });
  allClose(results["dHead"]!, expectedHead, { atol: 2e-4 });
  await engine.dispose();
});

test("ranks are exact: a label that ties with the greatest logit is the argmax", async () => {
  const integer = (below: number) => Math.floor(below * random.uniform());
  // Small whole numbers: every sum is exact, and many logits are equal.
  const whole = (size: number) => Float32Array.from({ length: size }, () => integer(3) - 1);
  const [hidden, head] = [whole(rows * width), whole(vocabulary * width)];
  const labels = BigInt64Array.from({ length: rows }, () => BigInt(integer(vocabulary)));
  const x = input("hidden", [batch, length, width], "F32");
  const w = input("head", [vocabulary, width], "F32");
  const { ranks } = tokenScores(x, w, input("labels", [batch, length], "I64"));
  const expected = Array.from(labels, (label, row) => {
    const logits = Array.from({ length: vocabulary }, (_, v) => {
      let sum = 0;
      for (let i = 0; i < width; i++) sum += hidden[row * width + i]! * head[v * width + i]!;
      return sum;
    });
    return logits.filter((logit) => logit > logits[Number(label)]!).length;
  });
  assert.ok(new Set(expected).size === vocabulary);
  for (const device of ["cpu", "tfjs"]) {
    const engine = await openEngine(device, { threads: 1 });
    const program = await engine.compile({ ranks }, new Map());
    const results = await program.run({ hidden, head, labels });
    assert.deepEqual([...results["ranks"]!], expected, device);
    await engine.dispose();
  }
});

test("no array of all logits exists, and a frozen head needs no scatter", () => {
  const x = input("hidden", [batch, length, width], "F32");
  const labels = input("labels", [batch, length], "I64");
  const { nats } = tokenScores(x, parameter("head", [vocabulary, width]), labels);
  const nodes = topologicalOrder(gradients(nats, [x]));
  const wide = nodes.filter(({ shape }) => shape.at(-1) === vocabulary);
  assert.ok(wide.length > 0);
  assert.ok(wide.every(({ shape }) => shape.length === 2 && Number(shape[0]) <= 256));
  assert.ok(nodes.every(({ op }) => op !== "ScatterAdd"));
});
