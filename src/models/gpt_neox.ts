// GPT-NeoX and Pythia (Black et al., 2022): fused query, key and value per head, partial rotary positions, attention
// and feed-forward in parallel or in sequence; weights are [out, in].
// B = batch, T = sequence, N = heads, D = hidden, F = feed-forward

import { add, gather, reshape, slice, transpose } from "../graph/build.ts";
import type { Tensor } from "../graph/tensor.ts";
import { attention } from "../nn/attention.ts";
import { activate, type Activation, activationNamed, layerNorm, linear } from "../nn/layers.ts";
import { rotation, type RotaryConfig } from "../nn/rotary.ts";
import { type Architecture, type ForwardContext, prefixed, range } from "./architecture.ts";
import { divided, type ModelConfig } from "./config.ts";
import { readRotary } from "./rope-config.ts";

interface NeoxConfig extends ModelConfig {
  readonly activation: Activation;
  readonly rotary: RotaryConfig;
  readonly isParallel: boolean;
  readonly hasAttentionBias: boolean;
}

const PREFIX = "gpt_neox";

export const gpt_neox: Architecture<NeoxConfig> = {
  readConfig: (config) => {
    const hiddenSize = config.count("hidden_size");
    const numHeads = config.count("num_attention_heads");
    const headDim = divided(config, hiddenSize, numHeads, "hidden_size over num_attention_heads");
    const parameters = config.object("rope_parameters");
    const share = parameters?.has("partial_rotary_factor")
      ? parameters.number("partial_rotary_factor")
      : config.number("rotary_pct", 0.25);
    return {
      numLayers: config.count("num_hidden_layers"),
      hiddenSize,
      numHeads,
      numKeyValueHeads: numHeads,
      headDim,
      intermediateSize: config.count("intermediate_size"),
      vocabSize: config.count("vocab_size"),
      maxPositions: config.count("max_position_embeddings", 2048),
      normEpsilon: config.number("layer_norm_eps", 1e-5),
      isTied: config.flag("tie_word_embeddings", false),
      initializerRange: config.number("initializer_range", 0.02),
      activation: activationNamed(config.text("hidden_act", "gelu")),
      rotary: readRotary(config, Math.floor(headDim * share), "rotary_emb_base"),
      isParallel: config.flag("use_parallel_residual", true),
      hasAttentionBias: config.flag("attention_bias", true),
    };
  },
  weights: ({ numLayers, hiddenSize: D, intermediateSize: F, ...config }) =>
    new Map([
      ...prefixed(PREFIX, { "embed_in.weight": [config.vocabSize, D] }),
      ...range(numLayers).flatMap((layer) =>
        prefixed(`${PREFIX}.layers.${layer}`, {
          "input_layernorm.weight": [D],
          "input_layernorm.bias": [D],
          "attention.query_key_value.weight": [3 * D, D],
          "attention.query_key_value.bias": config.hasAttentionBias ? [3 * D] : undefined,
          "attention.dense.weight": [D, D],
          "attention.dense.bias": config.hasAttentionBias ? [D] : undefined,
          "post_attention_layernorm.weight": [D],
          "post_attention_layernorm.bias": [D],
          "mlp.dense_h_to_4h.weight": [F, D],
          "mlp.dense_h_to_4h.bias": [F],
          "mlp.dense_4h_to_h.weight": [D, F],
          "mlp.dense_4h_to_h.bias": [D],
        }),
      ),
      ...prefixed(PREFIX, { "final_layer_norm.weight": [D], "final_layer_norm.bias": [D] }),
      ...(config.isTied ? [] : ([["embed_out.weight", [config.vocabSize, D]]] as const)),
    ]),
  canonicalName: (stored) =>
    /\.attention\.(bias|masked_bias|rotary_emb\.inv_freq)$|rotary_emb\.inv_freq$/.test(stored)
      ? null
      : stored,
  inputEmbedding: `${PREFIX}.embed_in.weight`,
  outputEmbedding: "embed_out.weight",
  attentionPrefix: (layer) => `${PREFIX}.layers.${layer}.attention`,
  placeOf: ({ headDim }, layer, projection) => {
    const module = `${PREFIX}.layers.${layer}.attention.query_key_value`;
    const first = { query: 0, key: headDim, value: 2 * headDim }[projection];
    return { module, axis: 0, first, stride: 3 * headDim };
  },
  isNorm: (name) => /norm\.(weight|bias)$/.test(name),
  forward: (config, context) => {
    const rotate = rotation(config.rotary, context.positions);
    let x_BTD: Tensor = gather(context.weight(`${PREFIX}.embed_in.weight`), context.ids);
    for (const layer of range(config.numLayers))
      x_BTD = block(config, context, layer, context.keep(x_BTD, "stream"), rotate);
    return norm(config, context, `${PREFIX}.final_layer_norm`, x_BTD);
  },
};

function block(
  config: NeoxConfig,
  context: ForwardContext,
  layer: number,
  x_BTD: Tensor,
  rotate: (x: Tensor) => Tensor,
): Tensor {
  const { weight, positions, hooks, keep } = context;
  const prefix = `${PREFIX}.layers.${layer}`;
  const project = (name: string, x: Tensor, hasBias = true) =>
    linear(
      x,
      weight(`${prefix}.${name}.weight`),
      hasBias ? weight(`${prefix}.${name}.bias`) : undefined,
    );
  const attended = () => {
    const normed = norm(config, context, `${prefix}.input_layernorm`, x_BTD);
    const fused = project("attention.query_key_value", normed, config.hasAttentionBias);
    const projections = splitFused(config, keep(fused, "product"));
    const scale = config.headDim ** -0.5;
    const y_BTD = attention(projections, { scale, positions, rotate, hooks, layer });
    return project("attention.dense", y_BTD, config.hasAttentionBias);
  };
  const fed = (x: Tensor) => {
    const normed = norm(config, context, `${prefix}.post_attention_layernorm`, x);
    const up_BTF = activate(
      keep(project("mlp.dense_h_to_4h", normed), "product"),
      config.activation,
    );
    return project("mlp.dense_4h_to_h", up_BTF);
  };
  if (config.isParallel) return add(add(attended(), fed(x_BTD)), x_BTD);
  const middle_BTD = keep(add(attended(), x_BTD), "stream");
  return add(fed(middle_BTD), middle_BTD);
}

/** [B, T, N · 3 · H], each head's query, key and value side by side, as three [B, N, T, H] */
function splitFused({ numHeads, headDim }: NeoxConfig, fused: Tensor) {
  const [batch, length] = fused.shape;
  const perHead = reshape(fused, [batch!, length!, numHeads, 3 * headDim]);
  const part = (i: number) =>
    transpose(slice(perHead, 3, i * headDim, (i + 1) * headDim), [0, 2, 1, 3]);
  return { query: part(0), key: part(1), value: part(2) };
}

function norm({ normEpsilon }: NeoxConfig, { weight }: ForwardContext, name: string, x: Tensor) {
  return layerNorm(x, weight(`${name}.weight`), weight(`${name}.bias`), normEpsilon);
}
