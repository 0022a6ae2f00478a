// The closed form of a step's cost against the graph's own operations and arrays; it leaves out that the first layer, before
// which nothing trains, needs a little less.

import assert from "node:assert/strict";
import { test } from "node:test";
import { costOf, stepCost } from "../../bench/cost.ts";
import { openWithTemperatures, writeRandomModel } from "../../bench/models.ts";
import { add, gather, input, matMul, parameter, reshape } from "../../src/graph/build.ts";
import { buildTrainingGraph } from "../../src/train/step.ts";
import { temporaryFolder } from "../helpers.ts";

const gpt2 = { model_type: "gpt2", n_layer: 6, n_head: 6, n_embd: 384, vocab_size: 4000 };
const llama = {
  model_type: "llama",
  num_hidden_layers: 5,
  hidden_size: 384,
  intermediate_size: 1280,
  num_attention_heads: 12,
  num_key_value_heads: 3,
  vocab_size: 3000,
};
const shapes = [
  { config: gpt2, batchSize: 1, context: 384 },
  { config: gpt2, batchSize: 3, context: 1024 },
  { config: llama, batchSize: 1, context: 640 },
  { config: llama, batchSize: 2, context: 256 },
] as const;

for (const { config, ...window } of shapes)
  test(`${config.model_type}, ${window.batchSize} x ${window.context} tokens: within 3 %`, async (t) => {
    const folder = await temporaryFolder(t);
    await writeRandomModel(folder, { n_positions: 1024, ...config });
    const opened = await openWithTemperatures(folder);
    const names = [...opened.temperatures!.values.keys()];
    const counted = costOf(buildTrainingGraph(opened, window, names));
    const predicted = stepCost(opened.model, window);
    for (const what of ["operations", "bytes"] as const) {
      const ratio = predicted[what] / counted[what];
      t.diagnostic(`${what}: ${ratio.toFixed(4)} of the graph's`);
      assert.ok(Math.abs(ratio - 1) < 0.03);
    }
  });

test("products count as operations, passes as what they read and write", () => {
  const x = input("x", [3, 5], "F32");
  const w = parameter("w", [7, 5]);
  const y = matMul(x, w, { transposeB: true });
  assert.deepEqual(costOf({ y }), { operations: 2 * 3 * 5 * 7, bytes: 0 });
  assert.deepEqual(costOf({ y: matMul(x, input("z", [3, 7], "F32"), { transposeA: true }) }), {
    operations: 2 * 3 * 5 * 7,
    bytes: 0,
  });
  assert.deepEqual(costOf({ z: reshape(add(y, y), [21]) }), {
    operations: 2 * 3 * 5 * 7,
    bytes: 4 * 3 * 21,
  });
  // Two of seven rows, read and written.
  const rows = gather(w, input("ids", [2], "I64"));
  assert.deepEqual(costOf({ rows }), { operations: 0, bytes: 4 * 2 * 10 });
});
