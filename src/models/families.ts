// The families, a row each, by the `model_type` of config.json.

import { UserError } from "../core/errors.ts";
import { shown } from "../core/json.ts";
import type { Activation } from "../nn/layers.ts";
import type { RotaryConfig } from "../nn/rotary.ts";
import { type ConfigReader, type ModelConfig, readRotary } from "./config.ts";

/** A row of the table of families: names of modules in checkpoints, and what a config means. */
export interface Family {
  /** Of all names but the output embedding's; some checkpoints were saved without it. */
  readonly prefix: string;
  readonly embeddings: {
    readonly input: string;
    /** Learned ones. */
    readonly positions: string | null;
    /** Where it is not tied. */
    readonly output: string;
  };
  readonly layers: string;
  readonly norms: readonly [attention: string, mlp: string, final: string];
  readonly attention: {
    readonly name: string;
    /** Norms of each head's query and key; these and all projections are below `name`. */
    readonly headNorms: readonly [query: string, key: string] | null;
    readonly output: string;
  };
  /** Query, key and value are three modules, three parts of one, or three parts of each of its heads. */
  readonly projections: {
    readonly names: readonly string[];
    readonly split: "modules" | "parts" | "heads";
  };
  readonly mlp: { readonly gate: string | null; readonly up: string; readonly down: string };
  readonly norm: "layer" | "rms";
  /** PyTorch's Linear keeps a weight as [out, in], GPT-2's Conv1D as [in, out]. */
  readonly layout: "FD" | "DF";
  /** Its names for what config.json calls otherwise in most families; the first that is set counts. */
  readonly aliases: Readonly<Record<string, readonly string[]>>;
  /** What the absence of a size means. */
  readonly defaults: Readonly<{
    maxPositions: number;
    normEpsilon: number;
    isTied: boolean;
    activation: Activation;
  }>;
  /** Else hidden size over heads. */
  readonly headDim?: number;
  /** Feed-forward over hidden size, where it may be absent. */
  readonly intermediateRatio?: number;
  readonly readSettings: (config: ConfigReader, sizes: ModelConfig) => Settings;
}

export type Settings = Readonly<typeof usual>;

/** What most families have. */
const usual = {
  /** null: positions are learned. */
  rotary: null as RotaryConfig | null,
  /** Keys that a query of each layer sees, its own among them; null: all. */
  windows: [] as readonly (number | null)[],
  /** Of query, key and value. */
  hasAttentionBias: true,
  /** Of the projection of what was attended to. */
  hasOutputBias: true,
  hasMlpBias: true,
  /** Attention and feed-forward see the same input. */
  isParallel: false,
  /** Attention's logits are divided by √(head dim), by layer + 1. */
  scaleByHeadDim: true,
  scaleByLayer: false,
};
const unbiased = { ...usual, hasAttentionBias: false, hasOutputBias: false, hasMlpBias: false };

/** Radford et al., 2019: learned positions, weights in Conv1D layout. */
const gpt2: Family = {
  prefix: "transformer",
  embeddings: { input: "wte", positions: "wpe", output: "lm_head" },
  layers: "h",
  norms: ["ln_1", "ln_2", "ln_f"],
  attention: { name: "attn", headNorms: null, output: "c_proj" },
  projections: { names: ["c_attn"], split: "parts" },
  mlp: { gate: null, up: "c_fc", down: "c_proj" },
  norm: "layer",
  layout: "DF",
  aliases: {
    num_hidden_layers: ["n_layer"],
    hidden_size: ["n_embd"],
    num_attention_heads: ["n_head"],
    intermediate_size: ["n_inner"],
    max_position_embeddings: ["n_positions", "n_ctx"],
    rms_norm_eps: ["layer_norm_epsilon"],
    hidden_act: ["activation_function"],
  },
  defaults: { maxPositions: 1024, normEpsilon: 1e-5, activation: "gelu_new", isTied: true },
  intermediateRatio: 4,
  readSettings: (config) => {
    config.only("add_cross_attention", false);
    return {
      ...usual,
      scaleByHeadDim: config.flag("scale_attn_weights", true),
      scaleByLayer: config.flag("scale_attn_by_inverse_layer_idx", false),
    };
  },
};

/**
 * And Pythia (Black et al., 2022): query, key and value fused per head, partial rotary positions, attention and
 * feed-forward in parallel or in sequence.
 */
const gpt_neox: Family = {
  prefix: "gpt_neox",
  embeddings: { input: "embed_in", positions: null, output: "embed_out" },
  layers: "layers",
  norms: ["input_layernorm", "post_attention_layernorm", "final_layer_norm"],
  attention: { name: "attention", headNorms: null, output: "dense" },
  projections: { names: ["query_key_value"], split: "heads" },
  mlp: { gate: null, up: "dense_h_to_4h", down: "dense_4h_to_h" },
  norm: "layer",
  layout: "FD",
  aliases: {
    rms_norm_eps: ["layer_norm_eps"],
    rope_theta: ["rotary_emb_base"],
    partial_rotary_factor: ["rotary_pct"],
  },
  defaults: { maxPositions: 2048, normEpsilon: 1e-5, activation: "gelu", isTied: false },
  readSettings: (config, sizes) => ({
    ...usual,
    ...attentionBias(config, true),
    rotary: readRotary(config, sizes, 0.25),
    isParallel: config.flag("use_parallel_residual", true),
  }),
};

/** Touvron et al., 2023: RMS norm, rotary positions, grouped-query attention, SwiGLU. */
const llama: Family = {
  prefix: "model",
  embeddings: { input: "embed_tokens", positions: null, output: "lm_head" },
  layers: "layers",
  norms: ["input_layernorm", "post_attention_layernorm", "norm"],
  attention: { name: "self_attn", headNorms: null, output: "o_proj" },
  projections: { names: ["q_proj", "k_proj", "v_proj"], split: "modules" },
  mlp: { gate: "gate_proj", up: "up_proj", down: "down_proj" },
  norm: "rms",
  layout: "FD",
  aliases: {},
  defaults: { maxPositions: 2048, normEpsilon: 1e-6, activation: "silu", isTied: false },
  readSettings: (config, sizes) => ({
    ...usual,
    ...attentionBias(config, false),
    rotary: readRotary(config, sizes),
    hasMlpBias: config.flag("mlp_bias", false),
  }),
};

/** Jiang et al., 2023: Llama with a sliding window in every layer, or none where it is null. */
const mistral: Family = {
  ...llama,
  defaults: { ...llama.defaults, maxPositions: 131072 },
  readSettings: (config, sizes) => ({
    ...unbiased,
    rotary: readRotary(config, sizes),
    windows: Array<number | null>(sizes.numLayers).fill(slidingWindow(config)),
  }),
};

/** And Qwen 2.5 (Yang et al., 2024): Llama with biases on query, key and value, and windows in the last layers. */
const qwen2: Family = {
  ...llama,
  defaults: { ...llama.defaults, maxPositions: 32768 },
  readSettings: (config, sizes) => ({
    ...unbiased,
    rotary: readRotary(config, sizes),
    windows: readWindows(config, sizes),
    hasAttentionBias: true,
  }),
};

/** Yang et al., 2025: Qwen2 with a norm of each head's query and key. */
const qwen3: Family = {
  ...qwen2,
  attention: { ...qwen2.attention, headNorms: ["q_norm", "k_norm"] },
  headDim: 128,
  readSettings: (config, sizes) => ({
    ...qwen2.readSettings(config, sizes),
    ...attentionBias(config, false),
  }),
};

export const families: Readonly<Record<string, Family>> = {
  gpt2,
  gpt_neox,
  llama,
  mistral,
  qwen2,
  qwen3,
};

function attentionBias(config: ConfigReader, fallback: boolean) {
  const hasBias = config.flag("attention_bias", fallback);
  return { hasAttentionBias: hasBias, hasOutputBias: hasBias };
}

/** Null says something else than an absent key. */
const slidingWindow = (config: ConfigReader) =>
  config.isNull("sliding_window") ? null : config.count("sliding_window", 4096);

/** Where `use_sliding_window` says so, the layers that `layer_types` lists, or those from `max_window_layers` on. */
function readWindows(config: ConfigReader, { numLayers }: ModelConfig): (number | null)[] {
  const size = slidingWindow(config);
  const window = config.flag("use_sliding_window", false) ? size : null;
  const first = config.number("max_window_layers", 28);
  const types = config.has("layer_types") ? config.list("layer_types") : undefined;
  if (types && types.length !== numLayers)
    throw new UserError(`${config.path}: ${types.length} layer_types for ${numLayers} layers`);
  return Array.from({ length: numLayers }, (_, layer) => {
    if (!types) return layer < first ? null : window;
    if (types[layer] === "full_attention") return null;
    if (types[layer] === "sliding_attention" && window) return window;
    throw new UserError(`${config.path}: layer_types: ${shown(types[layer])} is not supported`, {
      hint: `supported: full_attention, and sliding_attention where use_sliding_window is true`,
    });
  });
}
