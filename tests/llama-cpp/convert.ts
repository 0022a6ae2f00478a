// Model folders of Hugging Face as GGUF files for llama.cpp, in F32: what its own converter does with names, order and
// constants, written for the tiny models of tests/fixtures.

import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { openSafetensors, readFloats } from "../../src/files/safetensors.ts";
import { type GgufTensor, type Metadata, writeGguf } from "./gguf.ts";

type Json = Readonly<Record<string, unknown>>;

interface Weight {
  readonly shape: readonly number[];
  readonly data: Float32Array;
}

interface Architecture {
  readonly name: string;
  /** llama.cpp turns neighbours instead of halves: rows of queries and keys are put in its order. */
  readonly turnsNeighbours?: boolean;
  /** The norm after attention and its residual has this name in models that norm what attention gives. */
  readonly normsAfter?: boolean;
  /** Norms multiply by 1 + weight here and by the weight there. */
  readonly countsFromOne?: boolean;
  /** Where the embeddings are tied, the head is stored nevertheless. */
  readonly hasOwnHead?: boolean;
  readonly metadata?: (config: Json) => Metadata;
}

const number = (config: Json, key: string, fallback?: number) =>
  Number(config[key] ?? fallback ?? NaN);

/** By model_type. */
export const architectures: Readonly<Record<string, Architecture>> = {
  gpt2: { name: "gpt2" },
  gpt_neox: {
    name: "gptneox",
    hasOwnHead: true,
    metadata: (config) => ({
      use_parallel_residual: config["use_parallel_residual"] === true,
      "rope.dimension_count": { u32: headDim(config) * number(config, "rotary_pct") },
    }),
  },
  llama: { name: "llama", turnsNeighbours: true },
  mistral: { name: "llama", turnsNeighbours: true },
  qwen2: { name: "qwen2" },
  qwen3: { name: "qwen3" },
  smollm3: { name: "smollm3", turnsNeighbours: true },
  phi3: {
    name: "phi3",
    metadata: (config) => ({
      "attention.sliding_window": { u32: number(config, "sliding_window", 0) },
      "rope.dimension_count": {
        u32: Math.floor(headDim(config) * number(config, "partial_rotary_factor", 1)),
      },
    }),
  },
  granite: {
    name: "granite",
    turnsNeighbours: true,
    metadata: (config) => ({
      "attention.scale": { f32: number(config, "attention_multiplier") },
      embedding_scale: { f32: number(config, "embedding_multiplier") },
      residual_scale: { f32: number(config, "residual_multiplier") },
      logit_scale: { f32: number(config, "logits_scaling") },
    }),
  },
  gemma2: {
    name: "gemma2",
    normsAfter: true,
    countsFromOne: true,
    metadata: (config) => ({
      "attention.sliding_window": { u32: number(config, "sliding_window") },
      attn_logit_softcapping: { f32: number(config, "attn_logit_softcapping") },
      final_logit_softcapping: { f32: number(config, "final_logit_softcapping") },
    }),
  },
  gemma3_text: {
    name: "gemma3",
    normsAfter: true,
    countsFromOne: true,
    metadata: (config) => ({
      "attention.sliding_window": { u32: number(config, "sliding_window") },
      "attention.sliding_window_pattern": { u32: number(config, "sliding_window_pattern") },
      "rope.freq_base_swa": { f32: number(config, "rope_local_base_freq") },
    }),
  },
  olmo2: { name: "olmo2", normsAfter: true },
  starcoder2: { name: "starcoder2" },
};

const heads = (config: Json) => number(config, "num_attention_heads", number(config, "n_head"));
const hidden = (config: Json) => number(config, "hidden_size", number(config, "n_embd"));
const headDim = (config: Json) => number(config, "head_dim", hidden(config) / heads(config));

/** Writes the model of a folder as one GGUF file; each tensor as `stored` says, in F32 by default. */
export async function convert(
  folder: string,
  path: string,
  extra: Metadata = {},
  stored = (_: string, tensor: GgufTensor) => tensor,
): Promise<void> {
  const [metadata, tensors] = await converted(folder);
  for (const [name, tensor] of tensors) tensors.set(name, stored(name, tensor));
  await writeGguf(path, { ...metadata, ...extra }, tensors);
}

/** What such a file has, in F32. */
export async function converted(folder: string): Promise<[Metadata, Map<string, GgufTensor>]> {
  const config = JSON.parse(await readFile(join(folder, "config.json"), "utf8")) as Json;
  const architecture = architectures[String(config["model_type"])]!;
  const tensors = new Map<string, GgufTensor>();
  for (const [name, info] of (await openSafetensors(folder)).tensors) {
    const place = renamed(name, architecture);
    const weight = { shape: info.shape, data: await readFloats(info) };
    const { shape, data } = arranged(place, weight, config, architecture);
    tensors.set(place, { shape, data: new Uint8Array(data.buffer) });
  }
  const [embedding, head] = ["token_embd.weight", "output.weight"].map((name) => tensors.get(name));
  tensors.set("token_embd.weight", embedding ?? head!);
  if (architecture.hasOwnHead) tensors.set("output.weight", head ?? embedding!);
  const scaling = ropeScaling(config, tensors);
  const own = { ...sizes(config), ...architecture.metadata?.(config), ...scaling };
  const metadata = {
    "general.architecture": architecture.name,
    "tokenizer.ggml.model": "no_vocab",
    ...Object.fromEntries(
      Object.entries(own).map(([key, value]) => [`${architecture.name}.${key}`, value]),
    ),
  };
  return [metadata, tensors];
}

const parts: readonly (readonly [RegExp, string])[] = [
  [/^(transformer|model|gpt_neox)\./, ""],
  [/^(h|layers)\./, "blk."],
  [/^(wte|embed_tokens|embed_in)\b/, "token_embd"],
  [/^wpe\b/, "position_embd"],
  [/^(ln_f|norm|final_layer_norm)\b/, "output_norm"],
  [/^(lm_head|embed_out)\b/, "output"],
  [/\b(ln_1|input_layernorm)\b/, "attn_norm"],
  [/\b(ln_2|post_attention_layernorm|pre_feedforward_layernorm)\b/, "ffn_norm"],
  [/\bpost_feedforward_layernorm\b/, "post_ffw_norm"],
  [/\b(attn\.c_attn|attention\.query_key_value|self_attn\.qkv_proj)\b/, "attn_qkv"],
  [/\b(attn\.c_proj|attention\.dense|self_attn\.o_proj)\b/, "attn_output"],
  [/\bself_attn\.([qkv])_proj\b/, "attn_$1"],
  [/\bself_attn\.([qk])_norm\b/, "attn_$1_norm"],
  [/\bmlp\.gate_proj\b/, "ffn_gate"],
  [/\bmlp\.(c_fc|dense_h_to_4h|up_proj|gate_up_proj)\b/, "ffn_up"],
  [/\bmlp\.(c_proj|dense_4h_to_h|down_proj)\b/, "ffn_down"],
];

function renamed(name: string, { normsAfter }: Architecture): string {
  const start = normsAfter ? name.replace("post_attention_layernorm", "post_attention_norm") : name;
  return parts.reduce((name, [pattern, place]) => name.replace(pattern, place), start);
}

/** A weight as llama.cpp has it. */
function arranged(
  place: string,
  weight: Weight,
  config: Json,
  { turnsNeighbours, countsFromOne }: Architecture,
): Weight {
  const { shape, data } = weight;
  const [rows, columns = 1] = shape as [number, number?];
  const isMatrix = shape.length === 2;
  const rowsIn = (order: (row: number) => number): Weight => {
    const moved = new Float32Array(data.length);
    for (let row = 0; row < rows; row++) {
      const from = order(row) * columns;
      moved.set(data.subarray(from, from + columns), row * columns);
    }
    return { shape, data: moved };
  };
  const H = headDim(config);
  if (countsFromOne && place.endsWith("norm.weight"))
    return { shape, data: data.map((w) => 1 + w) };
  // GPT-2 keeps matrices as [in, out].
  if (config["model_type"] === "gpt2" && isMatrix && place.startsWith("blk.")) {
    const turned = data.map((_, i) => data[(i % rows) * columns + Math.floor(i / rows)]!);
    return { shape: [columns, rows], data: turned };
  }
  // GPT-NeoX's rows are [head, part, H], here [part, head, H].
  if (config["model_type"] === "gpt_neox" && place.includes("attn_qkv"))
    return rowsIn((row) => {
      const [part, head] = [Math.floor(row / rows / (1 / 3)), Math.floor(row / H) % heads(config)];
      return (head * 3 + part) * H + (row % H);
    });
  // Within a head, element i of the first half beside element i of the second.
  if (turnsNeighbours && /attn_[qk]\.(weight|bias)$/.test(place))
    return rowsIn((row) => {
      const within = row % H;
      return row - within + (within % 2) * (H / 2) + Math.floor(within / 2);
    });
  return weight;
}

function sizes(config: Json): Metadata {
  const inner = number(config, "intermediate_size", number(config, "n_inner", 4 * hidden(config)));
  const context = number(config, "max_position_embeddings", number(config, "n_positions"));
  const epsilon = number(config, "layer_norm_eps", number(config, "norm_epsilon", NaN));
  const layerNorm = number(config, "layer_norm_epsilon", epsilon);
  return {
    vocab_size: { u32: number(config, "vocab_size") },
    context_length: { u32: context },
    embedding_length: { u32: hidden(config) },
    feed_forward_length: { u32: inner },
    block_count: { u32: number(config, "num_hidden_layers", number(config, "n_layer")) },
    "attention.head_count": { u32: heads(config) },
    "attention.head_count_kv": { u32: number(config, "num_key_value_heads", heads(config)) },
    "attention.key_length": { u32: headDim(config) },
    "attention.value_length": { u32: headDim(config) },
    "rope.dimension_count": { u32: headDim(config) },
    ...(Number.isNaN(layerNorm)
      ? { "attention.layer_norm_rms_epsilon": { f32: number(config, "rms_norm_eps") } }
      : { "attention.layer_norm_epsilon": { f32: layerNorm } }),
  };
}

/** Scaling in metadata, or as a divisor for each pair among the tensors. */
function ropeScaling(config: Json, tensors: Map<string, GgufTensor>): Metadata {
  const scaling = (config["rope_parameters"] ?? config["rope_scaling"] ?? {}) as Json;
  const theta = number(scaling, "rope_theta", number(config, "rope_theta", 10000));
  const factor = number(scaling, "factor", 1);
  const type = scaling["rope_type"] ?? scaling["type"] ?? "default";
  const base = { "rope.freq_base": { f32: theta } };
  const divisors = (name: string, values: readonly number[]) => {
    const data = new Uint8Array(Float32Array.from(values).buffer);
    tensors.set(name, { shape: [values.length], data });
  };
  const key = "original_max_position_embeddings";
  const original = number(config, key, number(scaling, key));
  if (type === "linear")
    return { ...base, "rope.scaling.type": "linear", "rope.scaling.factor": { f32: factor } };
  if (type === "yarn")
    return {
      ...base,
      "rope.scaling.type": "yarn",
      "rope.scaling.factor": { f32: factor },
      "rope.scaling.original_context_length": { u32: original },
    };
  if (type === "longrope") {
    // llama.cpp looks at the room that it has made, transformers at the tokens: 11 in all fixtures.
    const used = scaling[original < 11 ? "long_factor" : "short_factor"] as number[];
    divisors("rope_factors_long.weight", used);
    divisors("rope_factors_short.weight", used);
    const stretch = number(scaling, "factor", number(config, "max_position_embeddings") / original);
    return {
      ...base,
      "rope.scaling.type": "longrope",
      "rope.scaling.original_context_length": { u32: original },
      "rope.scaling.attn_factor": { f32: Math.sqrt(1 + Math.log(stretch) / Math.log(original)) },
    };
  }
  if (type === "llama3") {
    const [low, high] = [number(scaling, "low_freq_factor"), number(scaling, "high_freq_factor")];
    const H = headDim(config);
    const divisor = (_: unknown, i: number) => {
      const wavelength = 2 * Math.PI * theta ** ((2 * i) / H);
      if (wavelength < original / high) return 1;
      if (wavelength > original / low) return factor;
      const smooth = (original / wavelength - low) / (high - low);
      return 1 / ((1 - smooth) / factor + smooth);
    };
    divisors("rope_freqs.weight", Array.from({ length: H / 2 }, divisor));
  }
  return base;
}
