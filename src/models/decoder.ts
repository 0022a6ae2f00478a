// The decoder that every family is a setting of.
// B = batch, T = sequence, D = hidden, F = feed-forward, N = heads, H = head dim

import type { Shape } from "../core/shape.ts";
import { add, gather, input, mul, parameter, reshape, slice, transpose } from "../graph/build.ts";
import type { Tensor } from "../graph/tensor.ts";
import {
  attention,
  type AttentionHooks,
  type Projection,
  type ProjectionPlace,
  PROJECTIONS,
  splitHeads,
} from "../nn/attention.ts";
import { activate, layerNorm, linear, rmsNorm } from "../nn/layers.ts";
import { fixedPositions, type Positions } from "../nn/positions.ts";
import { rotation } from "../nn/rotary.ts";
import type { ModelConfig } from "./config.ts";
import type { Family, Settings } from "./families.ts";

type DecoderConfig = ModelConfig & Settings;

/** What can be tuned apart, and what is counted apart. */
export type WeightGroup = "embeddings" | "norms" | "biases" | "matrices";

export interface ForwardContext {
  /** A weight by its canonical name; those of normalizations are F32, the others all of one format. */
  readonly weight: (name: string, shape: Shape, group: WeightGroup) => Tensor;
  /** Token ids, I64 [B, T]. */
  readonly ids: Tensor;
  readonly positions: Positions;
  readonly hooks: AttentionHooks;
  /** Marks what the backward pass should find in memory, if activations are recomputed; gives it back. */
  readonly keep: (x: Tensor, part: KeptPart) => Tensor;
}

/** A point of the residual stream, or the result of a matrix product that costs much to compute again. */
export type KeptPart = "stream" | "product";

/** What older versions of the library saved beside the weights: masks and rotary tables. */
const BUFFER = /\.(attn|attention)\.(bias|masked_bias)$|rotary_emb\.(inv_freq|(cos|sin)_cached)$/;

/** A family with a config applied: nothing outside needs to know which it is. */
export type Model = Readonly<ReturnType<typeof decoder>>;

export function decoder(family: Family, config: DecoderConfig) {
  const { prefix, embeddings, layers, norms } = family;
  const outputEmbedding = `${embeddings.output}.weight`;
  /** The weights are what a forward pass asks for: looked at when needed, for a config can promise a million layers. */
  const walk = () => {
    const weights = new Map<string, Shape>();
    const groups = new Map<string, WeightGroup>();
    const weight = (name: string, shape: Shape, group: WeightGroup) => {
      weights.set(name, shape);
      groups.set(name, group);
      return parameter(name, shape);
    };
    const ids = input("ids", [1, 1], "I64");
    const keep = (x: Tensor) => input("kept", x.shape, x.dtype); // so that no graph of all layers is held
    forward(family, config, { weight, ids, positions: fixedPositions(1), hooks: {}, keep });
    if (!config.isTied)
      weight(outputEmbedding, [config.vocabSize, config.hiddenSize], "embeddings");
    return { weights, groups };
  };
  let walked: ReturnType<typeof walk> | undefined;
  const named = () => (walked ??= walk());
  const attentionPrefix = (layer: number) =>
    `${prefix}.${layers}.${layer}.${family.attention.name}`;
  const belowPrefix = [embeddings.input, embeddings.positions, layers, norms[2]];
  return {
    config: config as ModelConfig,
    /** Every weight by its canonical Hugging Face name, with its shape; a tied output embedding has none. */
    get weights(): ReadonlyMap<string, Shape> {
      return named().weights;
    },
    /** The canonical name of a stored tensor, or null for a buffer that is no weight. */
    canonicalName: (stored: string) => {
      if (BUFFER.test(stored)) return null;
      return belowPrefix.includes(stored.split(".")[0]!) ? `${prefix}.${stored}` : stored;
    },
    inputEmbedding: `${prefix}.${embeddings.input}.weight`,
    /** The stored one, where it is not tied. */
    outputEmbedding,
    /** Prefix of a layer's attention, without a trailing dot. */
    attentionPrefix,
    /** Where a projection's weights lie; null where a gain of its heads would be lost, as before a norm. */
    placeOf: (layer: number, projection: Projection): ProjectionPlace | null => {
      const i = PROJECTIONS.indexOf(projection);
      if (family.attention.headNorms && projection !== "value") return null;
      const { names, split } = family.projections;
      const { numHeads: N, numKeyValueHeads: K, headDim: H } = config;
      const first = { modules: 0, parts: [0, N, N + K][i]! * H, heads: i * H }[split];
      return {
        module: `${attentionPrefix(layer)}.${names[split === "modules" ? i : 0]}`,
        axis: family.layout === "FD" ? 0 : 1,
        first,
        stride: split === "heads" ? 3 * H : H,
      };
    },
    groupOf: (name: string) => named().groups.get(name)!,
    /** Hidden states after the last norm, [B, T, D]. */
    forward: (context: ForwardContext) => forward(family, config, context),
  };
}

function forward(
  family: Family,
  config: DecoderConfig,
  { weight, ids, positions, hooks, keep }: ForwardContext,
): Tensor {
  const { prefix, embeddings, mlp } = family;
  const { hiddenSize, intermediateSize, headDim: H, hasMlpBias } = config;
  const rotate = config.rotary && rotation(config.rotary, positions);
  const table = (name: string, rows: number) =>
    weight(`${prefix}.${name}.weight`, [rows, hiddenSize], "embeddings");
  const norm = (name: string, x: Tensor) => {
    const width = x.shape.slice(-1);
    const scale = weight(`${name}.weight`, width, "norms");
    if (family.norm === "rms") return rmsNorm(x, scale, config.normEpsilon);
    return layerNorm(x, scale, weight(`${name}.bias`, width, "norms"), config.normEpsilon);
  };
  const dense = (name: string, x: Tensor, size: number, hasBias: boolean) => {
    const shape = family.layout === "FD" ? [size, x.shape.at(-1)!] : [x.shape.at(-1)!, size];
    const matrix = weight(`${name}.weight`, shape, "matrices");
    const bias = hasBias ? weight(`${name}.bias`, [size], "biases") : undefined;
    return linear(x, matrix, bias, family.layout);
  };

  let x_BTD: Tensor = gather(table(embeddings.input, config.vocabSize), ids);
  if (embeddings.positions)
    x_BTD = add(x_BTD, positions.rows(table(embeddings.positions, config.maxPositions)));
  for (let layer = 0; layer < config.numLayers; layer++)
    x_BTD = block(layer, keep(x_BTD, "stream"));
  return norm(`${prefix}.${family.norms[2]}`, x_BTD);

  function block(layer: number, x_BTD: Tensor): Tensor {
    const at = `${prefix}.${family.layers}.${layer}`;
    const fed = (x: Tensor) => {
      const inner_BTD = norm(`${at}.${family.norms[1]}`, x);
      const product = (name: string) =>
        keep(dense(`${at}.mlp.${name}`, inner_BTD, intermediateSize, hasMlpBias), "product");
      const active_BTF = activate(product(mlp.gate ?? mlp.up), config.activation);
      const up_BTF = mlp.gate ? mul(active_BTF, product(mlp.up)) : active_BTF;
      return dense(`${at}.mlp.${mlp.down}`, up_BTF, hiddenSize, hasMlpBias);
    };
    const normed_BTD = norm(`${at}.${family.norms[0]}`, x_BTD);
    const attended_BTD = attended(layer, `${at}.${family.attention.name}`, normed_BTD);
    if (config.isParallel) return add(add(attended_BTD, fed(x_BTD)), x_BTD);
    const middle_BTD = keep(add(x_BTD, attended_BTD), "stream");
    return add(middle_BTD, fed(middle_BTD));
  }

  function attended(layer: number, at: string, x_BTD: Tensor): Tensor {
    const [query, key, value] = projections(at, x_BTD) as [Tensor, Tensor, Tensor];
    const { headNorms, output } = family.attention;
    const normed = (i: 0 | 1, x: Tensor) => (headNorms ? norm(`${at}.${headNorms[i]}`, x) : x);
    const scale = (config.scaleByHeadDim ? H ** -0.5 : 1) / (config.scaleByLayer ? layer + 1 : 1);
    const window = config.windows[layer] ?? Infinity;
    const y_BTD = attention(
      { query: normed(0, query), key: normed(1, key), value },
      { scale, positions, window, ...(rotate && { rotate }), hooks, layer },
    );
    return dense(`${at}.${output}`, y_BTD, hiddenSize, config.hasOutputBias);
  }

  /** Query, key and value, [B, heads, T, H]. */
  function projections(at: string, x_BTD: Tensor): Tensor[] {
    const { numHeads: N, numKeyValueHeads: K, hasAttentionBias } = config;
    const { names, split } = family.projections;
    const project = (i: number, heads: number) =>
      dense(`${at}.${names[i]}`, x_BTD, heads * H, hasAttentionBias);
    const product = (x: Tensor, heads: number) => keep(splitHeads(x, heads), "product");
    const counts = [N, K, K] as const;
    if (split === "modules") return counts.map((heads, i) => product(project(i, heads), heads));
    const fused = project(0, N + 2 * K);
    const part = (x: Tensor, start: number, heads: number) =>
      slice(x, x.shape.length - 1, start * H, (start + heads) * H);
    if (split === "parts")
      return [0, N, N + K].map((start, i) => product(part(fused, start, counts[i]!), counts[i]!));
    // Each head's query, key and value side by side.
    const perHead = reshape(keep(fused, "product"), [...fused.shape.slice(0, 2), N, 3 * H]);
    return counts.map((_, i) => transpose(part(perHead, i, 1), [0, 2, 1, 3]));
  }
}
