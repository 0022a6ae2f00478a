// Options of families: mistakes that are easy to make move the loss of a fixture by more than any rounding, and what
// config.json leaves out means what it means to transformers.

import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { boundWeights, buildForward, logitsOf } from "../../src/model/graph.ts";
import { openModel } from "../../src/model/open.ts";
import type { OpenedModel } from "../../src/model/opened.ts";
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

const global = { attention_types: [[["global"], 2]] };

const yarn = {
  rope_type: "yarn",
  factor: 4,
  beta_fast: 4,
  beta_slow: 0.5,
  original_max_position_embeddings: 128,
};

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
  ["layers without rope turned about", "smollm3", { no_rope_layers: [1, 0] }],
  ["rope in every layer", "smollm3", { no_rope_layers: [1, 1] }],
  ["the interval from the first layer", "smollm3-interval", { no_rope_layers: [0, 1, 1, 1] }],
  ["rope of half of each head", "phi3", { partial_rotary_factor: 0.5 }],
  ["no window", "phi3", { sliding_window: null }],
  ["long factors in a short window", "phi3-short", { original_max_position_embeddings: 8 }],
  ["short factors in a long window", "phi3-long", { original_max_position_embeddings: 12 }],
  ["no attention multiplier", "granite", { attention_multiplier: null }],
  ["no embedding multiplier", "granite", { embedding_multiplier: null }],
  ["no residual multiplier", "granite", { residual_multiplier: null }],
  ["no divisor of the logits", "granite", { logits_scaling: null }],
  ["a window of other layers", "gpt_neo-local", { ...global, attention_layers: null }],
  ["another local window", "gpt_neo-local", { window_size: 2 }],
  ["no cap of scores", "gemma2", { attn_logit_softcapping: null }],
  ["no cap of logits", "gemma2", { final_logit_softcapping: null }],
  ["windows in odd layers", "gemma2", { layer_types: ["full_attention", "sliding_attention"] }],
  ["scores by the size of heads", "gemma2", { query_pre_attn_scalar: 6 }],
  ["one base frequency for all", "gemma3_text", { rope_local_base_freq: 1e6 }],
  ["no window at all", "gemma3_text", { sliding_window: 32 }],
  ["no window", "starcoder2", { sliding_window: null }],
  ["no YaRN", "llama-yarn", { rope_parameters: null }],
  ["YaRN by other turns", "llama-yarn", { rope_parameters: { ...yarn, beta_fast: 32 } }],
  ["YaRN without its gain", "llama-yarn", { rope_parameters: { ...yarn, attention_factor: 1 } }],
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
  const full = [null, null, null, null];
  const pick = (model_type: string, changes?: Json) => {
    const read = config(model_type, changes);
    return names.map((name) => read[name]);
  };
  assert.deepEqual(pick("llama"), [2048, 4, 1e-6, false, []]);
  assert.deepEqual(pick("mistral"), [131072, 4, 1e-6, false, [4096, 4096, 4096, 4096]]);
  assert.deepEqual(pick("qwen2"), [32768, 4, 1e-6, false, full]);
  assert.deepEqual(pick("qwen3"), [32768, 128, 1e-6, false, full]);
  assert.deepEqual(pick("smollm3"), [32768, 4, 1e-6, true, full]);
  assert.deepEqual(pick("phi3"), [4096, 4, 1e-5, false, full]);
  assert.deepEqual(pick("granite"), [2048, 4, 1e-6, false, []]);
  assert.deepEqual(pick("olmo2"), [2048, 4, 1e-5, false, []]);
  assert.deepEqual(pick("gemma2"), [8192, 256, 1e-6, true, [4096, null, 4096, null]]);
  const sliding = [4096, 4096, 4096, 4096];
  assert.deepEqual(pick("gemma3_text"), [131072, 256, 1e-6, true, sliding]);
  assert.deepEqual(pick("starcoder2"), [4096, 4, 1e-5, true, full]);
  const neo = { num_layers: 4, num_heads: 4, attention_types: [[["global", "local"], 2]] };
  assert.deepEqual(pick("gpt_neo", neo), [2048, 4, 1e-5, true, [null, 256, null, 256]]);
  const opt = { ffn_dim: 22, word_embed_proj_dim: 16 };
  assert.deepEqual(pick("opt", opt), [2048, 4, 1e-5, true, []]);
});

test("activations, heads and factors that a config leaves out", () => {
  const neo = { num_layers: 2, num_heads: 4, attention_types: [[["global", "local"], 1]] };
  const activations = {
    llama: "silu",
    phi3: "silu",
    granite: "silu",
    olmo2: "silu",
    smollm3: "silu",
    gpt_neo: "gelu_new",
    opt: "relu",
    starcoder2: "gelu_pytorch_tanh",
    gemma2: "gelu_pytorch_tanh",
    gemma3_text: "gelu_pytorch_tanh",
  };
  for (const [type, activation] of Object.entries(activations)) {
    const own = { ...(type === "gpt_neo" && neo), ...(type === "opt" && { ffn_dim: 22 }) };
    assert.equal(config(type, own)["activation"], activation, type);
  }
  // What is noise in some files.
  assert.equal(config("gemma2", { hidden_act: "gelu" })["activation"], "gelu_pytorch_tanh");
  assert.equal(config("gemma2", { hidden_activation: "gelu" })["activation"], "gelu");
  const noise = { activation_function: "gelu" };
  assert.equal(config("starcoder2", noise)["activation"], "gelu_pytorch_tanh");
  assert.equal(config("gpt_neo", { ...neo, intermediate_size: null })["intermediateSize"], 64);

  const keyValueHeads = (type: string, changes?: Json) => config(type, changes)["numKeyValueHeads"];
  assert.equal(keyValueHeads("smollm3", { num_attention_heads: 8 }), 4);
  assert.equal(keyValueHeads("gemma3_text", { num_attention_heads: 8 }), 4);
  assert.equal(keyValueHeads("starcoder2"), 2);
  assert.equal(keyValueHeads("smollm3", { num_attention_heads: 8, num_key_value_heads: null }), 8);

  const factors = (type: string, changes?: Json) => {
    const { scale, scoreCap, logitCap, embeddingScale } = config(type, changes);
    return [scale, scoreCap, logitCap, embeddingScale];
  };
  assert.deepEqual(factors("gemma2"), [1 / 16, 50, 30, 4]);
  assert.deepEqual(factors("gemma2", { final_logit_softcapping: null }), [1 / 16, 50, null, 4]);
  assert.deepEqual(factors("gemma3_text"), [1 / 16, null, null, 4]);
  assert.deepEqual(factors("granite"), [1, null, null, 1]);
  assert.deepEqual(factors("llama"), [null, null, null, 1]);
  assert.deepEqual(factors("gpt_neo", neo), [1, null, null, 1]);
});

test("which layers of the newer families slide, and which turn", () => {
  const windows = (type: string, changes: Json) => config(type, changes)["windows"];
  const turns = (type: string, changes: Json) =>
    (config(type, changes)["rotary"] as (Json | null)[]).map((rotary) => rotary?.["theta"]);
  assert.deepEqual(windows("gemma3_text", { sliding_window: 3, sliding_window_pattern: 2 }), [
    3,
    null,
    3,
    null,
  ]);
  assert.deepEqual(windows("gemma3_text", { sliding_window: 3, _sliding_window_pattern: 3 }), [
    3,
    3,
    null,
    3,
  ]);
  assert.deepEqual(turns("gemma3_text", { sliding_window_pattern: 2 }), [1e4, 1e6, 1e4, 1e6]);
  const kinds = ["full_attention", "sliding_attention", "full_attention", "full_attention"];
  const both = { layer_types: kinds, sliding_window_pattern: 2, rope_local_base_freq: 5 };
  assert.deepEqual(turns("gemma3_text", both), [1e6, 5, 1e6, 1e6]);
  const own = (theta: number) => ({ rope_type: "default", rope_theta: theta });
  const newer = { full_attention: own(7), sliding_attention: own(8) };
  assert.deepEqual(
    turns("gemma3_text", { ...both, rope_local_base_freq: null, rope_parameters: newer }),
    [7, 8, 7, 7],
  );
  assert.deepEqual(windows("gemma2", { sliding_window: 3, sliding_window_size: 3 }), [
    3,
    null,
    3,
    null,
  ]);
  const none = undefined;
  assert.deepEqual(turns("smollm3", {}), [2e6, 2e6, 2e6, none]);
  assert.deepEqual(turns("smollm3", { no_rope_layer_interval: 2 }), [2e6, none, 2e6, none]);
  const listed = { no_rope_layers: [0, 1, 1, 0], use_sliding_window: true, sliding_window: 3 };
  assert.deepEqual(turns("smollm3", listed), [none, 2e6, 2e6, none]);
  assert.deepEqual(windows("smollm3", listed), [3, null, null, 3]);
  assert.deepEqual(windows("smollm3", { ...listed, sliding_window: null }), Array(4).fill(null));
  assert.deepEqual(windows("phi3", { sliding_window: 3 }), [3, 3, 3, 3]);
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

const longrope = { type: "longrope", short_factor: [1, 2], long_factor: [1, 3] };
const neo = (attention_types: unknown) => ({ num_layers: 4, num_heads: 4, attention_types });

const refused: readonly (readonly [string, Json, RegExp])[] = [
  ["llama", { rope_local_base_freq: 10000 }, /rope_local_base_freq = 10000 is not supported/],
  ["llama", { rope_interleaved: true }, /rope_interleaved = true is not supported/],
  ["gpt2", { n_embd: 8, n_head: 2, n_layer: 1, rope_theta: 1e4 }, /rope_theta = 10000/],
  ["llama", { rope_parameters: { partial_rotary_factor: 0.5 } }, /partial_rotary_factor = 0.5/],
  ["llama", { rope_scaling: { type: "linear", factor: 2, beta_fast: 32 } }, /beta_fast = 32/],
  ["qwen3", { rope_parameters: { full_attention: { rope_theta: 5 } } }, /full_attention = /],
  ["qwen2", { rope_scaling: { type: "ntk", factor: 4 } }, /rope type "ntk"/],
  ["llama", { rope_scaling: { type: "yarn" }, rope_theta: 1 }, /rope_theta must be above 1/],
  ["llama", { rope_scaling: { type: "yarn", beta_slow: 64 } }, /beta_fast must not be below/],
  ["llama", { rope_scaling: { type: "yarn", finetuned: true } }, /finetuned = true/],
  ["llama", { rope_scaling: { type: "yarn", truncate: false } }, /truncate = false/],
  ["phi3", { rope_scaling: { type: "su", short_factor: [1] } }, /"short_factor" must be 2 pos/],
  ["phi3", { rope_scaling: { ...longrope, short_mscale: 1.2 } }, /short_mscale/],
  ["phi3", { rope_scaling: longrope, original_max_position_embeddings: 1 }, /at least 2 tokens/],
  ["phi3", { attention_bias: true }, /attention_bias = true/],
  ["smollm3", { no_rope_layers: [1, 1] }, /no_rope_layers must be 0 or 1 for each layer/],
  ["smollm3", { no_rope_layers: [1, 1, 1, 2] }, /no_rope_layers must be 0 or 1/],
  ["gemma2", { sliding_window: null }, /sliding_window = null is not supported/],
  ["gemma2", { attn_logit_softcapping: 0 }, /"attn_logit_softcapping" must be a positive number/],
  ["gemma3_text", { use_bidirectional_attention: true }, /use_bidirectional_attention = true/],
  ["gemma3_text", { rope_parameters: { rope_theta: 5 } }, /"sliding_attention" is missing/],
  ["gemma3_text", { rope_scaling: longrope, rope_parameters: { a: 1 } }, /rope_scaling = /],
  ["gpt_neo", neo([[["global", "local"], 3]]), /attention_types: .* is not supported/],
  ["gpt_neo", neo([[["global"], 3]]), /attention_types: .* is not supported/],
  ["gpt_neo", neo([[["global", "distant"], 2]]), /"distant".* is not supported/],
  [
    "gpt_neo",
    { ...neo([[["global"], 4]]), attention_layers: ["local"] },
    /attention_layers: other/,
  ],
  ["opt", { ffn_dim: 22, do_layer_norm_before: false }, /do_layer_norm_before = false/],
  ["opt", { ffn_dim: 22, word_embed_proj_dim: 8 }, /word_embed_proj_dim = 8 is not supported/],
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
