// Llama (Touvron et al., 2023): RMS norm, rotary positions, grouped-query attention, SwiGLU; weights are [out, in].
// B = batch, T = sequence, D = hidden, F = feed-forward

import { add, gather, mul } from "../graph/build.ts";
import type { Tensor } from "../graph/tensor.ts";
import { attention, splitHeads } from "../nn/attention.ts";
import { activate, type Activation, activationNamed, linear, rmsNorm } from "../nn/layers.ts";
import { rotation, type RotaryConfig } from "../nn/rotary.ts";
import { type Architecture, type ForwardContext, prefixed, range } from "./architecture.ts";
import { divided, type ModelConfig } from "./config.ts";
import { readRotary } from "./rope-config.ts";

interface LlamaConfig extends ModelConfig {
  readonly activation: Activation;
  readonly rotary: RotaryConfig;
  readonly hasAttentionBias: boolean;
  readonly hasMlpBias: boolean;
}

export const llama: Architecture<LlamaConfig> = {
  readConfig: (config) => {
    config.only("sliding_window", null);
    config.only("partial_rotary_factor", 1);
    const hiddenSize = config.count("hidden_size");
    const numHeads = config.count("num_attention_heads");
    const numKeyValueHeads = config.count("num_key_value_heads", numHeads);
    divided(config, numHeads, numKeyValueHeads, "num_attention_heads over num_key_value_heads");
    const headDim = config.has("head_dim")
      ? config.count("head_dim")
      : divided(config, hiddenSize, numHeads, "hidden_size over num_attention_heads");
    return {
      numLayers: config.count("num_hidden_layers"),
      hiddenSize,
      numHeads,
      numKeyValueHeads,
      headDim,
      intermediateSize: config.count("intermediate_size"),
      vocabSize: config.count("vocab_size"),
      maxPositions: config.count("max_position_embeddings", 2048),
      normEpsilon: config.number("rms_norm_eps", 1e-6),
      isTied: config.flag("tie_word_embeddings", false),
      initializerRange: config.number("initializer_range", 0.02),
      activation: activationNamed(config.text("hidden_act", "silu")),
      rotary: readRotary(config, headDim, "rope_theta"),
      hasAttentionBias: config.flag("attention_bias", false),
      hasMlpBias: config.flag("mlp_bias", false),
    };
  },
  weights: (config) => {
    const { numLayers, hiddenSize: D, intermediateSize: F, vocabSize, isTied } = config;
    const queryWidth = config.numHeads * config.headDim;
    const keyWidth = config.numKeyValueHeads * config.headDim;
    const bias = (has: boolean, width: number) => (has ? [width] : undefined);
    return new Map([
      ...prefixed("model", { "embed_tokens.weight": [vocabSize, D] }),
      ...range(numLayers).flatMap((layer) =>
        prefixed(`model.layers.${layer}`, {
          "input_layernorm.weight": [D],
          "self_attn.q_proj.weight": [queryWidth, D],
          "self_attn.q_proj.bias": bias(config.hasAttentionBias, queryWidth),
          "self_attn.k_proj.weight": [keyWidth, D],
          "self_attn.k_proj.bias": bias(config.hasAttentionBias, keyWidth),
          "self_attn.v_proj.weight": [keyWidth, D],
          "self_attn.v_proj.bias": bias(config.hasAttentionBias, keyWidth),
          "self_attn.o_proj.weight": [D, queryWidth],
          "self_attn.o_proj.bias": bias(config.hasAttentionBias, D),
          "post_attention_layernorm.weight": [D],
          "mlp.gate_proj.weight": [F, D],
          "mlp.gate_proj.bias": bias(config.hasMlpBias, F),
          "mlp.up_proj.weight": [F, D],
          "mlp.up_proj.bias": bias(config.hasMlpBias, F),
          "mlp.down_proj.weight": [D, F],
          "mlp.down_proj.bias": bias(config.hasMlpBias, D),
        }),
      ),
      ...prefixed("model", { "norm.weight": [D] }),
      ...(isTied ? [] : ([["lm_head.weight", [vocabSize, D]]] as const)),
    ]);
  },
  canonicalName: (stored) => (stored.endsWith("rotary_emb.inv_freq") ? null : stored),
  inputEmbedding: "model.embed_tokens.weight",
  outputEmbedding: "lm_head.weight",
  attentionPrefix: (layer) => `model.layers.${layer}.self_attn`,
  placeOf: ({ headDim }, layer, projection) => {
    const name = { query: "q_proj", key: "k_proj", value: "v_proj" }[projection];
    return {
      module: `model.layers.${layer}.self_attn.${name}`,
      axis: 0,
      first: 0,
      stride: headDim,
    };
  },
  isNorm: (name) => name.endsWith("norm.weight"),
  forward: (config, context) => {
    const rotate = rotation(config.rotary, context.positions);
    let x_BTD: Tensor = gather(context.weight("model.embed_tokens.weight"), context.ids);
    for (const layer of range(config.numLayers))
      x_BTD = block(config, context, layer, context.keep(x_BTD, "stream"), rotate);
    return rmsNorm(x_BTD, context.weight("model.norm.weight"), config.normEpsilon);
  },
};

function block(
  config: LlamaConfig,
  { weight, positions, hooks, keep }: ForwardContext,
  layer: number,
  x_BTD: Tensor,
  rotate: (x: Tensor) => Tensor,
): Tensor {
  const prefix = `model.layers.${layer}`;
  const norm = (name: string, x: Tensor) =>
    rmsNorm(x, weight(`${prefix}.${name}.weight`), config.normEpsilon);
  const project = (name: string, x: Tensor, hasBias: boolean) =>
    linear(
      x,
      weight(`${prefix}.${name}.weight`),
      hasBias ? weight(`${prefix}.${name}.bias`) : undefined,
    );
  const attend = (name: string, x: Tensor) =>
    project(`self_attn.${name}`, x, config.hasAttentionBias);
  const feed = (name: string, x: Tensor) => project(`mlp.${name}`, x, config.hasMlpBias);
  const kept = (x: Tensor) => keep(x, "product");

  const normed_BTD = norm("input_layernorm", x_BTD);
  const heads = (name: string, count: number) =>
    keep(splitHeads(attend(name, normed_BTD), count), "product");
  const y_BTD = attention(
    {
      query: heads("q_proj", config.numHeads),
      key: heads("k_proj", config.numKeyValueHeads),
      value: heads("v_proj", config.numKeyValueHeads),
    },
    { scale: config.headDim ** -0.5, positions, rotate, hooks, layer },
  );
  const attended_BTD = keep(add(x_BTD, attend("o_proj", y_BTD)), "stream");
  const inner_BTD = norm("post_attention_layernorm", attended_BTD);
  const gate_BTF = activate(kept(feed("gate_proj", inner_BTD)), config.activation);
  return add(attended_BTD, feed("down_proj", mul(gate_BTF, kept(feed("up_proj", inner_BTD)))));
}
