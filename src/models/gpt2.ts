// GPT-2 (Radford et al., 2019): learned positions, weights in Conv1D layout.

import type { Family } from "./architecture.ts";

export const gpt2: Family = {
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
  headDim: null,
  intermediateRatio: 4,
  readSettings: (config) => {
    config.only("add_cross_attention", false);
    return {
      rotary: null,
      windows: [],
      hasAttentionBias: true,
      hasOutputBias: true,
      hasMlpBias: true,
      isParallel: false,
      scaleByHeadDim: config.flag("scale_attn_weights", true),
      scaleByLayer: config.flag("scale_attn_by_inverse_layer_idx", false),
    };
  },
};
