// Families after Llama: rotary positions, RMS norms, grouped-query attention and a gated feed-forward, but for StarCoder2.

import { UserError } from "../core/errors.ts";
import { everyLayer, type Family, normsBefore, unbiased } from "./family.ts";
import { attentionBias, layerWindows, readRotary, slidingWindow } from "./settings.ts";
import { gemma, gemmaRotary } from "./settings.ts";

/** Touvron et al., 2023: RMS norm, rotary positions, grouped-query attention, SwiGLU. */
export const llama: Family = {
  prefix: "model",
  embeddings: { input: "embed_tokens", positions: null, output: "lm_head" },
  layers: "layers",
  norms: normsBefore("input_layernorm", "post_attention_layernorm", "norm"),
  attention: { name: "self_attn", norms: null, output: "o_proj" },
  projections: { names: ["q_proj", "k_proj", "v_proj"], split: "modules" },
  mlp: { gate: "mlp.gate_proj", up: "mlp.up_proj", down: "mlp.down_proj" },
  norm: "rms",
  layout: "FD",
  aliases: {},
  defaults: { maxPositions: 2048, normEpsilon: 1e-6, activation: "silu", isTied: false },
  readSettings: (config) => ({
    ...attentionBias(config, false),
    hasMlpBias: config.flag("mlp_bias", false),
  }),
};

/** Jiang et al., 2023: Llama with a sliding window in every layer, or none where it is null. */
export const mistral: Family = {
  ...llama,
  defaults: { ...llama.defaults, maxPositions: 131072 },
  readSettings: (config, sizes) => ({
    ...unbiased,
    windows: everyLayer(sizes, slidingWindow(config)),
  }),
};

/** And Qwen 2.5 (Yang et al., 2024): Llama with biases on query, key and value, and windows in the last layers. */
export const qwen2: Family = {
  ...llama,
  defaults: { ...llama.defaults, maxPositions: 32768 },
  readSettings: (config, sizes) => {
    const size = slidingWindow(config);
    const window = config.flag("use_sliding_window", false) ? size : null;
    const first = config.number("max_window_layers", 28);
    const windows = layerWindows(config, sizes, window, (layer) => layer >= first);
    return { ...unbiased, hasAttentionBias: true, windows };
  },
};

/** Yang et al., 2025: Qwen2 with a norm of each head's query and key. */
export const qwen3: Family = {
  ...qwen2,
  attention: { ...qwen2.attention, norms: { names: ["q_norm", "k_norm"], of: "head" } },
  headDim: 128,
  readSettings: (config, sizes) => ({
    ...qwen2.readSettings(config, sizes),
    ...attentionBias(config, false),
  }),
};

/** SmolLM3 (Bakouch et al., 2025): Llama with layers that know no positions, one in four by default. */
export const smollm3: Family = {
  ...llama,
  defaults: { ...llama.defaults, maxPositions: 32768, isTied: true },
  keyValueHeads: 4,
  readSettings: (config, sizes) => {
    const interval = config.count("no_rope_layer_interval", 4);
    // 1 stands for a layer with rotary positions, whatever the key's name says.
    const fallback = Array.from({ length: sizes.numLayers }, (_, i) => +((i + 1) % interval !== 0));
    const turns = config.list("no_rope_layers", fallback);
    const isRight =
      turns.length >= sizes.numLayers && turns.every((turn) => turn === 0 || turn === 1);
    if (!isRight)
      throw new UserError(`${config.path}: no_rope_layers must be 0 or 1 for each layer`);
    const rotary = readRotary(config, sizes, { theta: 2e6 });
    const window = config.flag("use_sliding_window", false) ? slidingWindow(config, null) : null;
    return {
      ...llama.readSettings(config, sizes),
      rotary: Array.from({ length: sizes.numLayers }, (_, i) => (turns[i] === 1 ? rotary : null)),
      windows: layerWindows(config, sizes, window, (layer) => turns[layer] === 0),
    };
  },
};

/** Abdin et al., 2024: Llama with fused projections, partial rotary positions, and a window in every layer or none. */
export const phi3: Family = {
  ...llama,
  projections: { names: ["qkv_proj"], split: "parts" },
  mlp: { gate: "mlp.gate_up_proj", up: "mlp.gate_up_proj", down: "mlp.down_proj" },
  defaults: { ...llama.defaults, maxPositions: 4096, normEpsilon: 1e-5 },
  // What Microsoft's first files call longrope.
  rotary: { share: 1, synonyms: { su: "longrope", yarn: "longrope" } },
  readSettings: (config, sizes) => {
    for (const key of ["attention_bias", "mlp_bias", "lm_head_bias"]) config.only(key, false);
    return { ...unbiased, windows: everyLayer(sizes, slidingWindow(config, null)) };
  },
};

/** Granite 3 (IBM, 2024): Llama with factors of embedding, attention's logits, residual branches and logits. */
export const granite: Family = {
  ...llama,
  readSettings: (config, sizes) => ({
    ...llama.readSettings(config, sizes),
    scale: config.number("attention_multiplier", 1),
    embeddingScale: config.number("embedding_multiplier", 1),
    residualScale: config.number("residual_multiplier", 1),
    logitScale: 1 / config.positive("logits_scaling", 1),
  }),
};

/** OLMo et al., 2024: Llama with norms after attention and feed-forward, and of all heads' query and key as one. */
export const olmo2: Family = {
  ...llama,
  norms: {
    attention: [null, "post_attention_layernorm"],
    mlp: [null, "post_feedforward_layernorm"],
    final: "norm",
  },
  attention: { ...llama.attention, norms: { names: ["q_norm", "k_norm"], of: "all" } },
  defaults: { ...llama.defaults, normEpsilon: 1e-5 },
  readSettings: (config, sizes) => ({ ...llama.readSettings(config, sizes), hasMlpBias: false }),
};

/** Gemma Team, 2024: norms around both parts, soft caps, windows in every other layer, a scaled embedding. */
export const gemma2: Family = {
  ...llama,
  norms: {
    attention: ["input_layernorm", "post_attention_layernorm"],
    mlp: ["pre_feedforward_layernorm", "post_feedforward_layernorm"],
    final: "norm",
  },
  norm: "rmsPlusOne",
  aliases: { hidden_act: ["hidden_activation"] },
  defaults: {
    ...llama.defaults,
    maxPositions: 8192,
    activation: "gelu_pytorch_tanh",
    isTied: true,
  },
  headDim: 256,
  keyValueHeads: 4,
  readSettings: (config, sizes) => {
    config.has("sliding_window_size"); // says the window again
    return gemma(config, sizes, { score: 50, logit: 30 }, (layer) => layer % 2 === 0);
  },
};

/** Gemma Team, 2025: norms of query and key instead of caps, windows in five layers of six, which turn faster. */
export const gemma3_text: Family = {
  ...gemma2,
  attention: { ...llama.attention, norms: { names: ["q_norm", "k_norm"], of: "head" } },
  aliases: {
    ...gemma2.aliases,
    sliding_window_pattern: ["sliding_window_pattern", "_sliding_window_pattern"],
  },
  defaults: { ...gemma2.defaults, maxPositions: 131072 },
  readSettings: (config, sizes) => {
    config.only("use_bidirectional_attention", false);
    const pattern = config.count("sliding_window_pattern", 6);
    const slides = (layer: number) => (layer + 1) % pattern !== 0;
    const settings = gemma(config, sizes, { score: null, logit: null }, slides);
    const { sliding, full } = gemmaRotary(config, sizes);
    return { ...settings, rotary: settings.windows.map((window) => (window ? sliding : full)) };
  },
};

/** Lozhkov et al., 2024: rotary positions and windows with layer norms, biases and a plain feed-forward. */
export const starcoder2: Family = {
  ...llama,
  mlp: { gate: null, up: "mlp.c_fc", down: "mlp.c_proj" },
  norm: "layer",
  aliases: { rms_norm_eps: ["norm_epsilon"] },
  defaults: { ...gemma2.defaults, maxPositions: 4096, normEpsilon: 1e-5 },
  keyValueHeads: 2,
  readSettings: (config, sizes) => ({
    ...(!config.flag("use_bias", true) && unbiased),
    windows: everyLayer(sizes, slidingWindow(config, null)),
  }),
};
