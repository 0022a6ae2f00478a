// Options of families: mistakes that are easy to make move the loss of a fixture by more than any rounding, and what
// config.json leaves out means what it means to transformers.

import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { boundWeights, buildForward, logitsOf } from "../../src/model/graph.ts";
import { type OpenedModel, openModel } from "../../src/model/open.ts";
import { type Engine, openEngine } from "../../src/engines/index.ts";
import { openSafetensors, readBytes, readFloats } from "../../src/files/safetensors.ts";
import { readModel } from "../../src/models/index.ts";
import { sharedCase, skipWithout } from "../helpers.ts";

const fixtures = new URL("../fixtures/", import.meta.url).pathname;

type Json = Record<string, unknown>;

let engine: Engine;
before(async () => (engine = await openEngine("cpu", { threads: 1 })));
after(() => engine.dispose());

const configOf = async (variant: string) =>
  JSON.parse(await readFile(join(fixtures, variant, "config.json"), "utf8")) as Json;

/** Mean nats of a fixture's tokens under its config with changes. */
async function lossOf(variant: string, changes: Json): Promise<number> {
  const opened = await openModel(join(fixtures, variant));
  const model = readModel(variant, { ...(await configOf(variant)), ...changes });
  const augmented: OpenedModel = { ...opened, model };
  const { tensors } = await openSafetensors(join(fixtures, variant, "expected.safetensors"));
  const [batchSize, context] = tensors.get("input_ids")!.shape as [number, number];
  const ids = new BigInt64Array((await readBytes(tensors.get("input_ids")!)).buffer);
  const outputs = { logits: logitsOf(buildForward(augmented, { batchSize, context })) };
  const program = await engine.compile(outputs, boundWeights(augmented));
  const logits = (await program.run({ ids }))["logits"]!;
  await program.dispose();
  const { vocabSize } = model.config;
  let total = 0;
  for (let i = 0; i + 1 < ids.length; i++) {
    if ((i + 1) % context === 0) continue;
    const row = logits.subarray(i * vocabSize, (i + 1) * vocabSize);
    const sum = row.reduce((sum, logit) => sum + Math.exp(logit), 0);
    total += Math.log(sum) - row[Number(ids[i + 1])]!;
  }
  return total / (batchSize * (context - 1));
}

const mistakes: readonly (readonly [string, string, Json])[] = [
  ["a window without the token itself", "mistral", { sliding_window: 5 }],
  ["a window of as many keys before the token", "mistral", { sliding_window: 3 }],
  ["no window", "mistral", { sliding_window: null }],
  ["a window where there is none", "mistral-full", { sliding_window: 4 }],
  [
    "windows in the first layers",
    "qwen2",
    { layer_types: ["sliding_attention", "full_attention"] },
  ],
  ["windows in all layers", "qwen2", { max_window_layers: 0 }],
  ["a window one layer too late", "qwen2", { max_window_layers: 2 }],
  ["a window that is not in use", "qwen2-tied", { use_sliding_window: true }],
  ["max_window_layers before layer_types", "qwen3-layer-types", { layer_types: null }],
  ["another base frequency", "qwen2", { rope_theta: 10000 }],
  ["rope_parameters unread", "mistral-full", { rope_parameters: null }],
];

for (const [what, variant, changes] of mistakes)
  test(`${variant}: ${what} would be seen`, async () => {
    const [right, wrong] = [await lossOf(variant, {}), await lossOf(variant, changes)];
    const { tensors } = await openSafetensors(join(fixtures, variant, "expected.safetensors"));
    const [expected] = await readFloats(tensors.get("loss")!);
    assert.ok(Math.abs(right - expected!) < 1e-5, `${right}, PyTorch: ${expected}`);
    assert.ok(Math.abs(wrong - right) > 1e-4, `${wrong} is too close to ${right}`);
  });

const small = { hidden_size: 16, intermediate_size: 22, num_hidden_layers: 4, vocab_size: 9 };
const config = (model_type: string, changes: Json = {}) =>
  readModel("config.json", { model_type, num_attention_heads: 4, ...small, ...changes })
    .config as unknown as Json;

test("what a config leaves out", () => {
  const names = ["maxPositions", "headDim", "normEpsilon", "isTied", "windows"] as const;
  const pick = (model_type: string, changes?: Json) => {
    const read = config(model_type, changes);
    return names.map((name) => read[name]);
  };
  assert.deepEqual(pick("llama"), [2048, 4, 1e-6, false, []]);
  assert.deepEqual(pick("mistral"), [131072, 4, 1e-6, false, [4096, 4096, 4096, 4096]]);
  assert.deepEqual(pick("qwen2"), [32768, 4, 1e-6, false, [null, null, null, null]]);
  assert.deepEqual(pick("qwen3"), [32768, 128, 1e-6, false, [null, null, null, null]]);
});

test("which of Qwen's layers slide", () => {
  const windows = (changes: Json) => config("qwen2", changes)["windows"];
  const used = { use_sliding_window: true, max_window_layers: 2 };
  assert.deepEqual(windows({ ...used, sliding_window: 3 }), [null, null, 3, 3]);
  assert.deepEqual(windows(used), [null, null, 4096, 4096]);
  assert.deepEqual(windows({ ...used, sliding_window: null }), [null, null, null, null]);
  assert.deepEqual(windows({ use_sliding_window: true, sliding_window: 3 }), Array(4).fill(null));
  const kinds = ["sliding_attention", "full_attention", "sliding_attention", "full_attention"];
  const listed = { ...used, sliding_window: 3, layer_types: kinds };
  assert.deepEqual(windows(listed), [3, null, 3, null]);
  assert.throws(() => windows({ ...listed, use_sliding_window: false }), /"sliding_attention"/);
  assert.throws(() => windows({ layer_types: ["chunked_attention"] }), /1 layer_types for 4/);
  const chunked = Array(4).fill("chunked_attention");
  assert.throws(() => windows({ layer_types: chunked }), /"chunked_attention" is not supported/);
  assert.throws(() => config("mistral", { layer_types: kinds }), /layer_types = .* not supported/);
});

test("rotary settings, wherever they stand", () => {
  const rotary = (changes: Json, type = "llama") => (config(type, changes)["rotary"] as Json[])[0]!;
  assert.deepEqual(rotary({}), { rotaryDim: 4, theta: 10000, scaling: { type: "none" } });
  const linear = { rope_type: "linear", factor: 2 };
  const { theta, scaling } = rotary({ rope_scaling: { ...linear, rope_theta: 7 }, rope_theta: 5 });
  assert.deepEqual([theta, scaling], [7, { type: "linear", factor: 2 }]);
  // Beside rope_scaling, rope_parameters does not count at all.
  const both = { rope_scaling: linear, rope_parameters: { rope_type: "default", rope_theta: 5 } };
  assert.deepEqual(rotary(both), { rotaryDim: 4, theta: 10000, scaling });
  assert.equal(rotary({ rope_scaling: {}, rope_parameters: { rope_theta: 5 } })["theta"], 5);
  const llama3 = { rope_type: "llama3", factor: 8, low_freq_factor: 1, high_freq_factor: 4 };
  const original = (changes: Json) =>
    (rotary({ rope_scaling: llama3, ...changes })["scaling"] as Json)["originalMaxPositions"];
  assert.equal(original({}), 2048);
  assert.equal(original({ original_max_position_embeddings: 64 }), 64);
  assert.equal(rotary({ head_dim: 16 }, "gpt_neox")["rotaryDim"], 4);
  assert.equal(rotary({ rope_interleaved: false })["theta"], 10000);
  // Not where GPT-NeoX has it.
  assert.equal(rotary({ head_dim: 16, rope_theta: 5 }, "gpt_neox")["theta"], 10000);
  assert.equal(rotary({ head_dim: 16, rotary_emb_base: 5 }, "gpt_neox")["theta"], 5);
});

const refused: readonly (readonly [string, Json, RegExp])[] = [
  ["llama", { rope_local_base_freq: 10000 }, /rope_local_base_freq = 10000 is not supported/],
  ["llama", { rope_interleaved: true }, /rope_interleaved = true is not supported/],
  ["gpt2", { n_embd: 8, n_head: 2, n_layer: 1, rope_theta: 1e4 }, /rope_theta = 10000/],
  ["llama", { rope_parameters: { partial_rotary_factor: 0.5 } }, /partial_rotary_factor = 0.5/],
  ["llama", { rope_scaling: { type: "linear", factor: 2, beta_fast: 32 } }, /beta_fast = 32/],
  ["qwen3", { rope_parameters: { full_attention: { rope_theta: 5 } } }, /full_attention = /],
  ["qwen2", { rope_scaling: { type: "yarn", factor: 4 } }, /rope type "yarn"/],
];

for (const [type, changes, message] of refused)
  test(`${type}: ${JSON.stringify(changes)} is refused`, () => {
    assert.throws(() => config(type, changes), message);
  });

test("swish is silu", async () =>
  assert.equal(await lossOf("llama", { hidden_act: "swish" }), await lossOf("llama", {})));

for (const name of ["rotary-cos-cached", "llama-without-prefix"])
  test(`${name}: opens`, { skip: skipWithout(sharedCase(name)) }, async () => {
    const { weights, model } = await openModel(sharedCase(name));
    assert.deepEqual([...weights.keys()].sort(), [...model.weights.keys()].sort());
  });
