// GPT-2 (Radford et al., 2019): learned positions, pre-norm blocks, weights in Conv1D layout [in, out].
// B = batch, T = sequence, D = hidden, F = feed-forward

import { add, gather, slice } from "../graph/build.ts";
import type { Tensor } from "../graph/tensor.ts";
import { attention, splitHeads } from "../nn/attention.ts";
import { activate, type Activation, activationNamed, layerNorm, linear } from "../nn/layers.ts";
import { type Architecture, type ForwardContext, prefixed, range } from "./architecture.ts";
import { divided, type ModelConfig } from "./config.ts";

interface Gpt2Config extends ModelConfig {
  readonly activation: Activation;
  readonly scaleByHeadDim: boolean;
  readonly scaleByLayer: boolean;
}

const PREFIX = "transformer";

export const gpt2: Architecture<Gpt2Config> = {
  readConfig: (config) => {
    config.only("add_cross_attention", false);
    const hiddenSize = config.count("n_embd");
    const numHeads = config.count("n_head");
    return {
      numLayers: config.count("n_layer"),
      hiddenSize,
      numHeads,
      numKeyValueHeads: numHeads,
      headDim: divided(config, hiddenSize, numHeads, "n_embd over n_head"),
      intermediateSize: config.count("n_inner", 4 * hiddenSize),
      vocabSize: config.count("vocab_size"),
      maxPositions: config.count("n_positions", config.count("n_ctx", 1024)),
      normEpsilon: config.number("layer_norm_epsilon", 1e-5),
      isTied: config.flag("tie_word_embeddings", true),
      initializerRange: config.number("initializer_range", 0.02),
      activation: activationNamed(config.text("activation_function", "gelu_new")),
      scaleByHeadDim: config.flag("scale_attn_weights", true),
      scaleByLayer: config.flag("scale_attn_by_inverse_layer_idx", false),
    };
  },
  weights: ({ numLayers, hiddenSize: D, intermediateSize: F, vocabSize, maxPositions, isTied }) =>
    new Map([
      ...prefixed(PREFIX, { "wte.weight": [vocabSize, D], "wpe.weight": [maxPositions, D] }),
      ...range(numLayers).flatMap((layer) =>
        prefixed(`${PREFIX}.h.${layer}`, {
          "ln_1.weight": [D],
          "ln_1.bias": [D],
          "attn.c_attn.weight": [D, 3 * D],
          "attn.c_attn.bias": [3 * D],
          "attn.c_proj.weight": [D, D],
          "attn.c_proj.bias": [D],
          "ln_2.weight": [D],
          "ln_2.bias": [D],
          "mlp.c_fc.weight": [D, F],
          "mlp.c_fc.bias": [F],
          "mlp.c_proj.weight": [F, D],
          "mlp.c_proj.bias": [D],
        }),
      ),
      ...prefixed(PREFIX, { "ln_f.weight": [D], "ln_f.bias": [D] }),
      ...(isTied ? [] : ([["lm_head.weight", [vocabSize, D]]] as const)),
    ]),
  // The hub's gpt2 was saved without the prefix; older files keep the causal mask as a buffer.
  canonicalName: (stored) => {
    if (/\.attn\.(bias|masked_bias)$/.test(stored)) return null;
    return /^(h\.\d|wte\.|wpe\.|ln_f\.)/.test(stored) ? `${PREFIX}.${stored}` : stored;
  },
  inputEmbedding: `${PREFIX}.wte.weight`,
  outputEmbedding: "lm_head.weight",
  attentionPrefix: (layer) => `${PREFIX}.h.${layer}.attn`,
  placeOf: ({ hiddenSize, headDim }, layer, projection) => {
    const first = { query: 0, key: hiddenSize, value: 2 * hiddenSize }[projection];
    return { module: `${PREFIX}.h.${layer}.attn.c_attn`, axis: 1, first, stride: headDim };
  },
  isNorm: (name) => /\.ln_(1|2|f)\./.test(name),
  forward: (config, context) => {
    const { weight, ids, positions } = context;
    const embedded_BTD = gather(weight(`${PREFIX}.wte.weight`), ids);
    let x_BTD = add(embedded_BTD, positions.rows(weight(`${PREFIX}.wpe.weight`)));
    for (const layer of range(config.numLayers))
      x_BTD = block(config, context, layer, context.keep(x_BTD, "stream"));
    return norm(config, context, `${PREFIX}.ln_f`, x_BTD);
  },
};

function block(config: Gpt2Config, context: ForwardContext, layer: number, x_BTD: Tensor): Tensor {
  const { numHeads, headDim, hiddenSize, activation, scaleByHeadDim, scaleByLayer } = config;
  const { weight, positions, hooks, keep } = context;
  const prefix = `${PREFIX}.h.${layer}`;
  const conv1d = (name: string, x: Tensor) =>
    linear(x, weight(`${prefix}.${name}.weight`), weight(`${prefix}.${name}.bias`), "DF");

  const fused = conv1d("attn.c_attn", norm(config, context, `${prefix}.ln_1`, x_BTD)); // [B, T, 3 D]
  const part = (i: number) =>
    keep(splitHeads(slice(fused, 2, i * hiddenSize, (i + 1) * hiddenSize), numHeads), "product");
  const y_BTD = attention(
    { query: part(0), key: part(1), value: part(2) },
    {
      scale: (scaleByHeadDim ? headDim ** -0.5 : 1) / (scaleByLayer ? layer + 1 : 1),
      positions,
      hooks,
      layer,
    },
  );
  const attended_BTD = keep(add(x_BTD, conv1d("attn.c_proj", y_BTD)), "stream");
  const inner_BTD = norm(config, context, `${prefix}.ln_2`, attended_BTD);
  const up_BTF = keep(conv1d("mlp.c_fc", inner_BTD), "product");
  return add(attended_BTD, conv1d("mlp.c_proj", activate(up_BTF, activation)));
}

function norm({ normEpsilon }: Gpt2Config, { weight }: ForwardContext, name: string, x: Tensor) {
  return layerNorm(x, weight(`${name}.weight`), weight(`${name}.bias`), normEpsilon);
}
