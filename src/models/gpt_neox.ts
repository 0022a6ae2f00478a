// GPT-NeoX and Pythia (Black et al., 2022): query, key and value fused per head, partial rotary positions, attention
// and feed-forward in parallel or in sequence.

import type { Family } from "./architecture.ts";
import { readRotary } from "./rope-config.ts";

export const gpt_neox: Family = {
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
  headDim: null,
  intermediateRatio: null,
  readSettings: (config, sizes) => {
    const hasBias = config.flag("attention_bias", true);
    return {
      rotary: readRotary(config, sizes, 0.25),
      windows: [],
      hasAttentionBias: hasBias,
      hasOutputBias: hasBias,
      hasMlpBias: true,
      isParallel: config.flag("use_parallel_residual", true),
      scaleByHeadDim: true,
      scaleByLayer: false,
    };
  },
};
