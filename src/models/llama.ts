// Llama (Touvron et al., 2023): RMS norm, rotary positions, grouped-query attention, SwiGLU.

import type { Family, Settings } from "./architecture.ts";
import type { ConfigReader, ModelConfig } from "./config.ts";
import { readRotary } from "./rope-config.ts";

/** What Llama's descendants read as it does. */
export function readLlama(config: ConfigReader, sizes: ModelConfig): Settings {
  const hasBias = config.flag("attention_bias", false);
  return {
    rotary: readRotary(config, sizes),
    windows: [],
    hasAttentionBias: hasBias,
    hasOutputBias: hasBias,
    hasMlpBias: config.flag("mlp_bias", false),
    isParallel: false,
    scaleByHeadDim: true,
    scaleByLayer: false,
  };
}

export const llama: Family = {
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
  headDim: null,
  intermediateRatio: null,
  readSettings: readLlama,
};
