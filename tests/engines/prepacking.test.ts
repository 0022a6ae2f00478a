// Packed matrices, which Intel's processors get (`prepacks` of the engine), against plain ones on this one: a step's losses
// and gradients, through the session options that the engine gives.

import assert from "node:assert/strict";
import { cpus } from "node:os";
import { test } from "node:test";
import { InferenceSession, Tensor } from "onnxruntime-node";
import { fixedShape } from "../../src/core/shape.ts";
import { targets, toOnnx } from "../../src/engines/onnx/onnx.ts";
import { formatOf, sessionEntries, sessionOptions } from "../../src/engines/onnxruntime/session.ts";
import { readBytes } from "../../src/files/safetensors.ts";
import { leaves } from "../../src/graph/tensor.ts";
import { boundWeights } from "../../src/model/graph.ts";
import { openModel } from "../../src/model/open.ts";
import { buildTrainingGraph } from "../../src/train/step.ts";
import { writeRandomModel } from "../../bench/models.ts";
import { allClose, temporaryFolder } from "../helpers.ts";

/** Of matrices in F32, with more inputs than the 128 up to which plain and packed products add in one order. */
const llama = {
  model_type: "llama",
  hidden_size: 160,
  intermediate_size: 320,
  num_attention_heads: 4,
  num_hidden_layers: 2,
  vocab_size: 300,
  max_position_embeddings: 128,
  rms_norm_eps: 1e-5,
};
const provider = { name: "cpu" };

test("a step with packed matrices gives the losses and gradients of one without", async (t) => {
  const folder = await temporaryFolder(t);
  await writeRandomModel(folder, llama);
  const model = await openModel(folder, { temperatures: {} });
  const { values } = model.temperatures!;
  const window = { batchSize: 2, context: 64 };
  const outputs = buildTrainingGraph(model, window, [...values.keys()], { recompute: "cheap" });
  const bytes = new Map<string, Uint8Array>();
  for (const [name, weight] of boundWeights(model))
    bytes.set(name, weight instanceof Uint8Array ? weight : await readBytes({ name, ...weight }));
  const onnx = toOnnx(outputs, (name) => bytes.get(name)!, targets.cpu);
  const size = window.batchSize * window.context;
  const ids = BigInt64Array.from({ length: size }, (_, i) => BigInt((7 * i * i) % 251));
  const given: Record<string, Float32Array | BigInt64Array> = {
    ...Object.fromEntries(values),
    ids,
    labels: ids.map((id) => (id + 7n) % 251n),
    weights: new Float32Array(size).fill(1),
  };
  const feeds = Object.fromEntries(
    [...leaves(outputs, "Input")].map(([name, x]) => {
      const { type, shape } = formatOf(x, targets.cpu);
      return [name, new Tensor(type, given[name]!, shape)];
    }),
  );
  const step = async (prepacks: boolean) => {
    const session = await InferenceSession.create(onnx, {
      ...sessionOptions(provider),
      intraOpNumThreads: 1,
      extra: { session: sessionEntries(provider, prepacks) },
    });
    const results = await session.run(feeds);
    await session.release();
    return results;
  };
  const [plain, packed] = [await step(false), await step(true)];
  let isOther = false;
  assert.deepEqual(Object.keys(packed).sort(), Object.keys(outputs).sort());
  for (const [name, { shape }] of Object.entries(outputs)) {
    const [expected, actual] = [plain, packed].map((of) => of[name]!.data as Float32Array);
    const largest = expected!.reduce((max, value) => Math.max(max, Math.abs(value)), 0);
    assert.ok(largest > 0, `${name} [${fixedShape(shape).join()}] is zero`);
    // Sums in another order: of gradients up to 2e-6 of the largest was measured.
    allClose(actual!, expected!, { atol: (name === "nats" ? 1e-6 : 5e-6) * largest });
    isOther ||= actual!.some((value, i) => value !== expected![i]);
  }
  // Else nothing was packed.
  if (/Intel/.test(cpus()[0]?.model ?? "")) assert.ok(isOther);
});
