// Families with layer norms and a plain feed-forward, after GPT-2: learned positions, or GPT-NeoX's rotary ones.

import { type Family, normsBefore } from "./family.ts";
import { attentionBias, attentionKinds } from "./settings.ts";

const separate = { names: ["q_proj", "k_proj", "v_proj"], split: "modules" } as const;

/** Radford et al., 2019: learned positions, weights in Conv1D layout. */
export const gpt2: Family = {
  prefix: "transformer",
  embeddings: { input: "wte", positions: "wpe", output: "lm_head" },
  layers: "h",
  norms: normsBefore("ln_1", "ln_2", "ln_f"),
  attention: { name: "attn", norms: null, output: "c_proj" },
  projections: { names: ["c_attn"], split: "parts" },
  mlp: { gate: null, up: "mlp.c_fc", down: "mlp.c_proj" },
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
      startsSmall: true,
      scale: config.flag("scale_attn_weights", true) ? null : 1,
      scaleByLayer: config.flag("scale_attn_by_inverse_layer_idx", false),
    };
  },
};

/**
 * And Pythia (Black et al., 2022): query, key and value fused per head, partial rotary positions, attention and
 * feed-forward in parallel or in sequence.
 */
export const gpt_neox: Family = {
  prefix: "gpt_neox",
  embeddings: { input: "embed_in", positions: null, output: "embed_out" },
  layers: "layers",
  norms: normsBefore("input_layernorm", "post_attention_layernorm", "final_layer_norm"),
  attention: { name: "attention", norms: null, output: "dense" },
  projections: { names: ["query_key_value"], split: "heads" },
  mlp: { gate: null, up: "mlp.dense_h_to_4h", down: "mlp.dense_4h_to_h" },
  norm: "layer",
  layout: "FD",
  aliases: {
    rms_norm_eps: ["layer_norm_eps"],
    rope_theta: ["rotary_emb_base"],
    partial_rotary_factor: ["rotary_pct"],
  },
  defaults: { maxPositions: 2048, normEpsilon: 1e-5, activation: "gelu", isTied: false },
  rotary: { share: 0.25 },
  readSettings: (config) => ({
    ...attentionBias(config, true),
    isParallel: config.flag("use_parallel_residual", true),
  }),
};

/** Black et al., 2021, and TinyStories: learned positions, local attention in every other layer, logits unscaled. */
export const gpt_neo: Family = {
  ...gpt2,
  attention: { name: "attn.attention", norms: null, output: "out_proj" },
  projections: separate,
  layout: "FD",
  aliases: {
    num_hidden_layers: ["num_layers"],
    num_attention_heads: ["num_heads"],
    rms_norm_eps: ["layer_norm_epsilon"],
    hidden_act: ["activation_function"],
  },
  defaults: { ...gpt2.defaults, maxPositions: 2048 },
  readSettings: (config, sizes) => {
    const window = config.count("window_size", 256);
    const windows = attentionKinds(config, sizes).map((kind) => (kind === "local" ? window : null));
    return { hasAttentionBias: false, scale: 1, windows };
  },
};

/** Zhang et al., 2022: GPT-2 with projections of their own and ReLU, its positions in a table from row 2 on. */
export const opt: Family = {
  ...gpt2,
  prefix: "model.decoder",
  embeddings: {
    input: "embed_tokens",
    positions: "embed_positions",
    firstRow: 2,
    output: "lm_head",
  },
  layers: "layers",
  norms: normsBefore("self_attn_layer_norm", "final_layer_norm", "final_layer_norm"),
  attention: { name: "self_attn", norms: null, output: "out_proj" },
  projections: separate,
  mlp: { gate: null, up: "fc1", down: "fc2" },
  layout: "FD",
  aliases: { intermediate_size: ["ffn_dim"], hidden_act: ["activation_function"] },
  defaults: { maxPositions: 2048, normEpsilon: 1e-5, activation: "relu", isTied: true },
  readSettings: (config, { hiddenSize }) => {
    for (const key of ["do_layer_norm_before", "enable_bias", "layer_norm_elementwise_affine"])
      config.only(key, true);
    config.only("_remove_final_layer_norm", false);
    config.only("word_embed_proj_dim", hiddenSize);
    return {};
  },
};
