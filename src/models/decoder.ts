// The decoder that every family is a setting of: its weights by name, and its forward pass.
// B = batch, T = sequence, V = vocabulary, D = hidden, F = feed-forward, N = heads, H = head dim

import { invariant } from "../core/errors.ts";
import type { Shape } from "../core/shape.ts";
import { add, gather, mul, reshape, slice, transpose } from "../graph/build.ts";
import type { Tensor } from "../graph/tensor.ts";
import { attention, splitHeads } from "../nn/attention.ts";
import { activate, layerNorm, linear, rmsNorm } from "../nn/layers.ts";
import { rotation } from "../nn/rotary.ts";
import type { DecoderConfig, Family, ForwardContext, Model, WeightGroup } from "./architecture.ts";

/** What older versions of the library saved beside the weights: masks and rotary tables. */
const BUFFER = /\.(attn|attention)\.(bias|masked_bias)$|rotary_emb\.(inv_freq|(cos|sin)_cached)$/;

export function decoder(family: Family, config: DecoderConfig): Model {
  const { stem, norms } = family;
  const rows = [...weightRows(family, config)];
  const groups = new Map(rows.map(([name, , group]) => [name, group]));
  return {
    config,
    weights: new Map(rows.map(([name, shape]) => [name, shape])),
    canonicalName: (stored) => {
      if (BUFFER.test(stored)) return null;
      const belowPrefix = [stem.embedding, stem.positions, stem.layers, norms.final];
      return belowPrefix.includes(stored.split(".")[0]!) ? `${stem.prefix}.${stored}` : stored;
    },
    inputEmbedding: `${stem.prefix}.${stem.embedding}.weight`,
    outputEmbedding: `${stem.head}.weight`,
    attentionPrefix: (layer) => attentionName(family, layer),
    groupOf: (name) => {
      const group = groups.get(name);
      invariant(group, `no weight ${name}`);
      return group;
    },
    forward: (context) => forward(family, config, groups, context),
  };
}

const layerName = ({ stem }: Family, layer: number) => `${stem.prefix}.${stem.layers}.${layer}`;
const attentionName = (family: Family, layer: number) =>
  `${layerName(family, layer)}.${family.attention.name}`;

type WeightRow = readonly [name: string, shape: Shape, group: WeightGroup];

function* weightRows(family: Family, config: DecoderConfig): Generator<WeightRow> {
  const { stem, norms, mlp } = family;
  const { hiddenSize: D, intermediateSize: F, headDim: H, vocabSize: V } = config;
  const [N, K] = [config.numHeads * H, config.numKeyValueHeads * H];
  function* norm(name: string, width = D): Generator<WeightRow> {
    yield [`${name}.weight`, [width], "norms"];
    if (family.norm === "layer") yield [`${name}.bias`, [width], "norms"];
  }
  function* dense(name: string, from: number, to: number, hasBias: boolean): Generator<WeightRow> {
    yield [`${name}.weight`, family.layout === "FD" ? [to, from] : [from, to], "matrices"];
    if (hasBias) yield [`${name}.bias`, [to], "biases"];
  }

  yield [`${stem.prefix}.${stem.embedding}.weight`, [V, D], "embeddings"];
  if (stem.positions)
    yield [`${stem.prefix}.${stem.positions}.weight`, [config.maxPositions, D], "embeddings"];
  for (let layer = 0; layer < config.numLayers; layer++) {
    const [prefix, inside] = [layerName(family, layer), attentionName(family, layer)];
    yield* norm(`${prefix}.${norms.attention}`);
    for (const [i, name] of family.attention.projections.entries()) {
      const width = family.split === "separate" ? [N, K, K][i]! : N + 2 * K;
      yield* dense(`${inside}.${name}`, D, width, config.hasAttentionBias);
    }
    for (const name of family.attention.headNorms ?? []) yield* norm(`${inside}.${name}`, H);
    yield* dense(`${inside}.${family.attention.output}`, N, D, config.hasOutputBias);
    yield* norm(`${prefix}.${norms.mlp}`);
    for (const name of mlp.gate ? [mlp.gate, mlp.up] : [mlp.up])
      yield* dense(`${prefix}.mlp.${name}`, D, F, config.hasMlpBias);
    yield* dense(`${prefix}.mlp.${mlp.down}`, F, D, config.hasMlpBias);
  }
  yield* norm(`${stem.prefix}.${norms.final}`);
  if (!config.isTied) yield [`${stem.head}.weight`, [V, D], "embeddings"];
}

function forward(
  family: Family,
  config: DecoderConfig,
  weights: ReadonlyMap<string, WeightGroup>,
  { weight, ids, positions, hooks, keep }: ForwardContext,
): Tensor {
  const { stem, norms, mlp } = family;
  const rotate = config.rotary && rotation(config.rotary, positions);
  const table = (name: string) => weight(`${stem.prefix}.${name}.weight`);
  const module = (name: string) => {
    const bias = weights.has(`${name}.bias`) ? weight(`${name}.bias`) : undefined;
    return [weight(`${name}.weight`), bias] as const;
  };
  const dense = (name: string, x: Tensor) => linear(x, ...module(name), family.layout);
  const kept = (name: string, x: Tensor) => keep(dense(name, x), "product");
  const norm = (name: string, x: Tensor) => {
    const [scale, bias] = module(name);
    const epsilon = config.normEpsilon;
    return bias ? layerNorm(x, scale, bias, epsilon) : rmsNorm(x, scale, epsilon);
  };

  let x_BTD: Tensor = gather(table(stem.embedding), ids);
  if (stem.positions) x_BTD = add(x_BTD, positions.rows(table(stem.positions)));
  for (let layer = 0; layer < config.numLayers; layer++)
    x_BTD = block(layer, keep(x_BTD, "stream"));
  return norm(`${stem.prefix}.${norms.final}`, x_BTD);

  function block(layer: number, x_BTD: Tensor): Tensor {
    const prefix = layerName(family, layer);
    const fed = (x: Tensor) => {
      const inner_BTD = norm(`${prefix}.${norms.mlp}`, x);
      const first_BTF = kept(`${prefix}.mlp.${mlp.gate ?? mlp.up}`, inner_BTD);
      const active_BTF = activate(first_BTF, config.activation);
      const up_BTF = mlp.gate
        ? mul(active_BTF, kept(`${prefix}.mlp.${mlp.up}`, inner_BTD))
        : active_BTF;
      return dense(`${prefix}.mlp.${mlp.down}`, up_BTF);
    };
    const attended_BTD = attended(layer, norm(`${prefix}.${norms.attention}`, x_BTD));
    if (config.isParallel) return add(add(attended_BTD, fed(x_BTD)), x_BTD);
    const middle_BTD = keep(add(x_BTD, attended_BTD), "stream");
    return add(middle_BTD, fed(middle_BTD));
  }

  function attended(layer: number, x_BTD: Tensor): Tensor {
    const prefix = attentionName(family, layer);
    const scale =
      (config.scaleByHeadDim ? config.headDim ** -0.5 : 1) / (config.scaleByLayer ? layer + 1 : 1);
    const window = config.windows[layer] ?? Infinity;
    const options = { scale, positions, window, ...(rotate && { rotate }), hooks, layer };
    const y_BTD = attention(projections(prefix, x_BTD), options);
    return dense(`${prefix}.${family.attention.output}`, y_BTD);
  }

  /** Query, key and value, [B, heads, T, H]. */
  function projections(prefix: string, x_BTD: Tensor) {
    const { numHeads, numKeyValueHeads, headDim: H } = config;
    const heads = [numHeads, numKeyValueHeads, numKeyValueHeads];
    const project = (i: number) => dense(`${prefix}.${family.attention.projections[i]}`, x_BTD);
    const splits: Readonly<Record<Family["split"], () => Tensor[]>> = {
      separate: () => heads.map((count, i) => keep(splitHeads(project(i), count), "product")),
      parts: () => {
        const fused = project(0); // [B, T, (N + 2 K) · H]
        let end = 0;
        return heads.map((count) => {
          const part = slice(fused, 2, end, (end += count * H));
          return keep(splitHeads(part, count), "product");
        });
      },
      heads: () => {
        const fused = keep(project(0), "product"); // [B, T, N · 3 · H]
        const [batch, length] = fused.shape;
        const perHead = reshape(fused, [batch!, length!, numHeads, 3 * H]);
        const part = (i: number) => slice(perHead, 3, i * H, (i + 1) * H);
        return [0, 1, 2].map((i) => transpose(part(i), [0, 2, 1, 3]));
      },
    };
    const [query, key, value] = splits[family.split]() as [Tensor, Tensor, Tensor];
    const [queryNorm, keyNorm] = family.attention.headNorms ?? [];
    return {
      query: queryNorm ? norm(`${prefix}.${queryNorm}`, query) : query,
      key: keyNorm ? norm(`${prefix}.${keyNorm}`, key) : key,
      value,
    };
  }
}
