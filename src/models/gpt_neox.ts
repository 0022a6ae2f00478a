// GPT-NeoX and Pythia (Black et al., 2022): query, key and value fused per head, partial rotary positions, attention
// and feed-forward in parallel or in sequence.

import type { Family } from "./architecture.ts";
import { KEYS, readSizes } from "./read-config.ts";
import { readRotary } from "./rope-config.ts";

export const gpt_neox: Family = {
  stem: {
    prefix: "gpt_neox",
    embedding: "embed_in",
    positions: null,
    layers: "layers",
    head: "embed_out",
  },
  norms: {
    attention: "input_layernorm",
    mlp: "post_attention_layernorm",
    final: "final_layer_norm",
  },
  attention: {
    name: "attention",
    projections: ["query_key_value"],
    headNorms: null,
    output: "dense",
  },
  mlp: { gate: null, up: "dense_h_to_4h", down: "dense_4h_to_h" },
  norm: "layer",
  layout: "FD",
  split: "heads",
  readConfig: (config) => {
    const sizes = readSizes(config, {
      ...KEYS,
      maxPositions: ["max_position_embeddings", 2048],
      normEpsilon: ["layer_norm_eps", 1e-5],
      activation: ["hidden_act", "gelu"],
    });
    const hasBias = config.flag("attention_bias", true);
    return {
      ...sizes,
      rotary: readRotary(config, sizes, "rotary_emb_base", ["rotary_pct", 0.25]),
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
