// The memory estimate against what processes of five shapes really took at their peak.

import assert from "node:assert/strict";
import { test } from "node:test";
import { openWithTemperatures, weightBytes, writeRandomModel } from "../../bench/models.ts";
import { startTask } from "../../bench/processes.ts";
import { ENGINE_BYTES, estimate } from "../../src/engines/onnxruntime/estimate.ts";
import { buildTrainingGraph } from "../../src/train/step.ts";
import { temporaryFolder } from "../helpers.ts";

const gpt2 = {
  model_type: "gpt2",
  n_layer: 4,
  n_head: 4,
  n_embd: 256,
  n_positions: 1024,
  vocab_size: 8192,
};
const llama = {
  model_type: "llama",
  num_hidden_layers: 4,
  hidden_size: 256,
  intermediate_size: 1024,
  num_attention_heads: 8,
  num_key_value_heads: 2,
  vocab_size: 16000,
};
const gptNeox = {
  model_type: "gpt_neox",
  num_hidden_layers: 3,
  hidden_size: 256,
  intermediate_size: 1024,
  num_attention_heads: 4,
  vocab_size: 30000,
};
const shapes = [
  { name: "gpt2", config: gpt2, batchSize: 4, context: 512, recompute: "cheap" },
  { name: "gpt2", config: gpt2, batchSize: 4, context: 512, recompute: "blocks" },
  { name: "gpt2", config: gpt2, batchSize: 1, context: 1024, recompute: "cheap" },
  { name: "llama", config: llama, batchSize: 2, context: 512, recompute: "cheap" },
  { name: "gpt_neox", config: gptNeox, batchSize: 1, context: 512, recompute: "blocks" },
] as const;

for (const { name, config, ...shape } of shapes)
  test(`${name}, ${shape.batchSize} x ${shape.context} tokens, recomputes ${shape.recompute}: within 20 %`, async (t) => {
    const folder = await temporaryFolder(t);
    const dtype = name === "gpt_neox" ? "BF16" : "F32";
    await writeRandomModel(folder, config, dtype);
    const process = await startTask({ kind: "step", threads: 1, folder, ...shape });
    t.after(() => process.stop());
    for (let i = 0; i < 3; i++) await process.run();
    const measured = process.measured().peakRssMb * 1024 ** 2;

    const opened = await openWithTemperatures(folder);
    const names = [...opened.temperatures!.values.keys()];
    const graph = buildTrainingGraph(opened, shape, names, shape);
    const program = 1e6 * process.greeting.programMb!;
    const estimated = program + ENGINE_BYTES + weightBytes(opened) + estimate(graph, "cpu").host;
    const megabytes = (bytes: number) => `${Math.round(bytes / 1e6)} MB`;
    t.diagnostic(`estimated ${megabytes(estimated)}, measured ${megabytes(measured)}`);
    assert.ok(Math.abs(estimated / measured - 1) <= 0.2);
  });
