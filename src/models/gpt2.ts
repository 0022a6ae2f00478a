// GPT-2 (Radford et al., 2019): learned positions, weights in Conv1D layout.

import type { Family } from "./architecture.ts";
import { readSizes } from "./read-config.ts";

export const gpt2: Family = {
  stem: { prefix: "transformer", embedding: "wte", positions: "wpe", layers: "h", head: "lm_head" },
  norms: { attention: "ln_1", mlp: "ln_2", final: "ln_f" },
  attention: { name: "attn", projections: ["c_attn"], headNorms: null, output: "c_proj" },
  mlp: { gate: null, up: "c_fc", down: "c_proj" },
  norm: "layer",
  layout: "DF",
  split: "parts",
  readConfig: (config) => {
    config.only("add_cross_attention", false);
    return {
      ...readSizes(config, {
        numLayers: "n_layer",
        hiddenSize: "n_embd",
        numHeads: "n_head",
        intermediateSize: ["n_inner", 4 * config.count("n_embd")],
        maxPositions: ["n_positions", config.count("n_ctx", 1024)],
        normEpsilon: ["layer_norm_epsilon", 1e-5],
        activation: ["activation_function", "gelu_new"],
        isTied: true,
      }),
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
