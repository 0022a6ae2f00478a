// Llama (Touvron et al., 2023): RMS norm, rotary positions, grouped-query attention, SwiGLU.

import type { Family } from "./architecture.ts";
import { readLlama } from "./read-config.ts";

export const llama: Family = {
  stem: {
    prefix: "model",
    embedding: "embed_tokens",
    positions: null,
    layers: "layers",
    head: "lm_head",
  },
  norms: { attention: "input_layernorm", mlp: "post_attention_layernorm", final: "norm" },
  attention: {
    name: "self_attn",
    projections: ["q_proj", "k_proj", "v_proj"],
    headNorms: null,
    output: "o_proj",
  },
  mlp: { gate: "gate_proj", up: "up_proj", down: "down_proj" },
  norm: "rms",
  layout: "FD",
  split: "separate",
  readConfig: (config) => {
    config.only("sliding_window", null);
    const hasBias = config.flag("attention_bias", false);
    return readLlama(config, {
      maxPositions: 2048,
      windows: [],
      hasAttentionBias: hasBias,
      hasOutputBias: hasBias,
      hasMlpBias: config.flag("mlp_bias", false),
    });
  },
};
