// The closed form of a step's cost against the graph's own operations and arrays; it leaves out that the first layer, before
// which nothing trains, needs a little less.

import assert from "node:assert/strict";
import { test } from "node:test";
import { stepCost } from "../../bench/cost.ts";
import { openWithTemperatures, writeRandomModel } from "../../bench/models.ts";
import { DTYPE_BYTES } from "../../src/core/dtype.ts";
import { sizeOf } from "../../src/core/shape.ts";
import { isOp, type Outputs, type Tensor, topologicalOrder } from "../../src/graph/tensor.ts";
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
    const augmented = await openWithTemperatures(folder);
    const names = [...augmented.temperatures!.values.keys()];
    const counted = count(buildTrainingGraph(augmented, window, names));
    const predicted = stepCost(augmented.model, window);
    for (const what of ["operations", "bytes"] as const) {
      const ratio = predicted[what] / counted[what];
      t.diagnostic(`${what}: ${ratio.toFixed(4)} of the graph's`);
      assert.ok(Math.abs(ratio - 1) < 0.03);
    }
  });

function count(outputs: Outputs) {
  let [operations, bytes] = [0, 0];
  for (const tensor of topologicalOrder(Object.values(outputs))) {
    if (isOp(tensor, "MatMul")) operations += operationsOf(tensor);
    else if (tensor.inputs.length > 0 && !isOp(tensor, "Reshape")) bytes += trafficOf(tensor);
  }
  return { operations, bytes };
}

function operationsOf({ inputs, attributes, shape }: Tensor<"MatMul">): number {
  return 2 * sizeOf(shape) * Number(inputs[0]!.shape.at(attributes.transposeA ? -2 : -1));
}

/** What a node reads and writes; of what it picks from, only what it takes. */
function trafficOf(tensor: Tensor): number {
  const picks = isOp(tensor, "Gather") || isOp(tensor, "Slice");
  const read = picks ? [tensor] : tensor.inputs;
  return [tensor, ...read].reduce(
    (sum, { shape, dtype }) => sum + sizeOf(shape) * DTYPE_BYTES[dtype],
    0,
  );
}
