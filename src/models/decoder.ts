// The decoder that every family is a setting of.
// B = batch, T = sequence, D = hidden, F = feed-forward, N = heads, H = head dim

import type { Random } from "../core/random.ts";
import type { Shape } from "../core/shape.ts";
import * as g from "../graph/build.ts";
import type { Tensor } from "../graph/tensor.ts";
import { attention, PROJECTIONS, splitHeads } from "../nn/attention.ts";
import type { Hooks, Projection, ProjectionPlace } from "../nn/attention.ts";
import { activate, layerNorm, linear, rmsNorm } from "../nn/layers.ts";
import { fixedPositions, type Positions } from "../nn/positions.ts";
import { rotation, type RotaryConfig, steadyLength } from "../nn/rotary.ts";
import { smallTiles, type Tiling } from "../nn/tiling.ts";
import type { ModelConfig } from "./config.ts";
import type { AroundPart, Family, Settings } from "./family.ts";

type DecoderConfig = ModelConfig & Settings;

/** What can be tuned apart, and what is counted apart. */
export type WeightGroup = "embeddings" | "norms" | "biases" | "matrices";

export interface ForwardContext {
  /** A weight by its canonical name; those of normalizations are F32, the others all of one format. */
  readonly weight: (name: string, shape: Shape, group: WeightGroup) => Tensor;
  /** Token ids, I64 [B, T]. */
  readonly ids: Tensor;
  readonly positions: Positions;
  readonly hooks: Hooks;
  /** Marks what the backward pass should find in memory, if activations are recomputed; gives it back. */
  readonly keep: (x: Tensor, part: KeptPart) => Tensor;
  readonly tiling: Tiling;
}

/**
 * A point of the residual stream, or the result of a matrix product that costs much to compute again; or rows of a long
 * window that are computed again one after another, each with what is made of it: of attention ("stage"), which costs
 * little, or of a feed-forward layer ("piece").
 */
export type KeptPart = "stream" | "product" | "stage" | "piece";

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
      return g.parameter(name, shape);
    };
    const ids = g.input("ids", [1, 1], "I64");
    const keep = (x: Tensor) => g.input("kept", x.shape, x.dtype); // so that no graph of all layers is held
    const [positions, tiling] = [fixedPositions(1), smallTiles];
    forward(family, config, { weight, ids, positions, hooks: {}, keep, tiling });
    const linears = new Map<string, readonly [number, number]>();
    for (const [name, shape] of weights) {
      const [D, F] = (family.layout === "FD" ? [...shape].reverse() : shape).map(Number);
      if (groups.get(name) === "matrices") linears.set(name.replace(/\.weight$/, ""), [D!, F!]);
    }
    if (!config.isTied)
      weight(outputEmbedding, [config.vocabSize, config.hiddenSize], "embeddings");
    return { weights, groups, linears };
  };
  let walked: ReturnType<typeof walk> | undefined;
  const named = () => (walked ??= walk());
  const attentionPrefix = (layer: number) =>
    `${prefix}.${layers}.${layer}.${family.attention.name}`;
  const belowPrefix = [embeddings.input, embeddings.positions, layers, norms.final];
  const [outer, inner] = prefix.split(".");
  const lengths = config.rotary.map((rotary) => (rotary ? steadyLength(rotary) : Infinity));
  return {
    config: config as ModelConfig,
    /** Tokens of the longest text that can grow behind a cache. */
    maxCached: lengths.reduce((least, length) => Math.min(least, length), config.maxPositions),
    /** Of the vocabulary's logits, which are those of `forward` times the output embedding; null: none. */
    logitCap: config.logitCap,
    /** Of each element of a weight at random: what changes nothing for norms, zeros for biases, else normal. */
    initialValue: (name: string): ((random: Random) => number) => {
      const group = named().groups.get(name)!;
      const unit = family.norm !== "rmsPlusOne" && group === "norms" && name.endsWith("weight");
      if (group === "norms" || group === "biases") return () => Number(unit);
      const added = [family.attention.output, family.mlp.down].map((module) => `.${module}.weight`);
      const isSmall = config.startsSmall && added.some((end) => name.endsWith(end));
      const deviation = config.initializerRange * (isSmall ? (2 * config.numLayers) ** -0.5 : 1);
      return (random) => random.normal() * deviation;
    },
    /** Every weight by its canonical Hugging Face name, with its shape; a tied output embedding has none. */
    get weights(): ReadonlyMap<string, Shape> {
      return named().weights;
    },
    /** Features in and out of the linear layers of all blocks, by module. */
    get linears() {
      return named().linears;
    },
    layout: family.layout,
    /** The canonical name of a stored tensor, or null for a buffer that is no weight. */
    canonicalName: (stored: string) => {
      if (BUFFER.test(stored)) return null;
      const start = stored.split(".")[0]!;
      if (belowPrefix.includes(start)) return `${prefix}.${stored}`;
      return start === inner ? `${outer}.${stored}` : stored;
    },
    inputEmbedding: `${prefix}.${embeddings.input}.weight`,
    /** The stored one, where it is not tied. */
    outputEmbedding,
    /** Prefix of a layer's attention, without a trailing dot. */
    attentionPrefix,
    /** Modules below that prefix that make query, key and value, and the keys that a query of each layer sees. */
    attention: {
      ...family.projections,
      norms: family.attention.norms,
      get windows() {
        return Array.from({ length: config.numLayers }, (_, i) => config.windows[i] ?? null);
      },
    },
    /** Where a projection's weights lie; null where a gain of its heads would be lost, as before a norm. */
    placeOf: (layer: number, projection: Projection): ProjectionPlace | null => {
      const i = PROJECTIONS.indexOf(projection);
      if (family.attention.norms && projection !== "value") return null;
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
    /** Hidden states after the last norm, with the logits' factor, [B, T, D]. */
    forward: (context: ForwardContext) => forward(family, config, context),
  };
}

function forward(family: Family, config: DecoderConfig, context: ForwardContext): Tensor {
  const { weight, ids, positions, hooks, keep, tiling } = context;
  const { prefix, embeddings, mlp } = family;
  const { hiddenSize, intermediateSize: F, headDim: H, hasMlpBias } = config;
  const rotations = new Map<RotaryConfig, ReturnType<typeof rotation>>();
  const rotationOf = (layer: number) => {
    const rotary = config.rotary[layer];
    if (!rotary) return undefined;
    const rotate = rotations.get(rotary) ?? rotation(rotary, positions);
    rotations.set(rotary, rotate);
    return rotate;
  };
  const table = (name: string, rows: number) =>
    weight(`${prefix}.${name}.weight`, [rows, hiddenSize], "embeddings");
  const norm = (name: string, x: Tensor) => {
    const width = x.shape.slice(-1);
    const gain = weight(`${name}.weight`, width, "norms");
    if (family.norm === "layer")
      return layerNorm(x, gain, weight(`${name}.bias`, width, "norms"), config.normEpsilon);
    return rmsNorm(x, family.norm === "rms" ? gain : g.add(gain, g.scalar(1)), config.normEpsilon);
  };
  const times = (x: Tensor, factor: number) => (factor === 1 ? x : g.scale(x, factor));
  const dense = (name: string, x: Tensor, size: number, hasBias: boolean) => {
    const shape = family.layout === "FD" ? [size, x.shape.at(-1)!] : [x.shape.at(-1)!, size];
    const matrix = weight(`${name}.weight`, shape, "matrices");
    const bias = hasBias ? weight(`${name}.bias`, [size], "biases") : undefined;
    const y = linear(x, matrix, bias, family.layout);
    return hooks.linear?.(name, x, y) ?? y;
  };

  const embedded_BTD = g.gather(table(embeddings.input, config.vocabSize), ids);
  let x_BTD = times(embedded_BTD, config.embeddingScale);
  if (embeddings.positions) {
    const { positions: name, firstRow: first = 0 } = embeddings;
    const end = first + config.maxPositions;
    x_BTD = g.add(x_BTD, positions.rows(g.slice(table(name, end), 0, first, end)));
  }
  for (let layer = 0; layer < config.numLayers; layer++)
    x_BTD = block(layer, keep(x_BTD, "stream"));
  return times(norm(`${prefix}.${family.norms.final}`, x_BTD), config.logitScale);

  function block(layer: number, x_BTD: Tensor): Tensor {
    const at = `${prefix}.${family.layers}.${layer}`;
    const normed = (name: string | null, x: Tensor) => (name ? norm(`${at}.${name}`, x) : x);
    const part = ([before, after]: AroundPart, x: Tensor, compute: (inner: Tensor) => Tensor) =>
      times(normed(after, compute(normed(before, x))), config.residualScale);
    const fed = (x: Tensor) =>
      part(family.norms.mlp, x, (inner_BTD) => {
        const [length, rows] = [Number(inner_BTD.shape[1]), tiling.mlpRows(F)];
        if (!(length > rows)) return feedForward(at, inner_BTD); // nor where it is only named
        const chunks = Array.from({ length: Math.ceil(length / rows) }, (_, i) => {
          const end = Math.min((i + 1) * rows, length);
          return feedForward(at, keep(g.slice(inner_BTD, 1, i * rows, end), "piece"));
        });
        return g.concat(chunks, 1);
      });
    const attended_BTD = part(family.norms.attention, x_BTD, (inner_BTD) =>
      attended(layer, `${at}.${family.attention.name}`, inner_BTD),
    );
    if (config.isParallel) return g.add(g.add(attended_BTD, fed(x_BTD)), x_BTD);
    const middle_BTD = keep(g.add(x_BTD, attended_BTD), "stream");
    return g.add(middle_BTD, fed(middle_BTD));
  }

  function feedForward(at: string, x_BTD: Tensor): Tensor {
    const product = (name: string, size: number) =>
      keep(dense(`${at}.${name}`, x_BTD, size, hasMlpBias), "product");
    const fused = mlp.gate === mlp.up ? product(mlp.up, 2 * F) : null;
    const gate_BTF = fused ? g.slice(fused, -1, 0, F) : product(mlp.gate ?? mlp.up, F);
    const active_BTF = activate(gate_BTF, config.activation);
    const up_BTF = fused ? g.slice(fused, -1, F, 2 * F) : mlp.gate ? product(mlp.up, F) : null;
    const inner_BTF = up_BTF ? g.mul(active_BTF, up_BTF) : active_BTF;
    return dense(`${at}.${mlp.down}`, inner_BTF, hiddenSize, hasMlpBias);
  }

  function attended(layer: number, at: string, x_BTD: Tensor): Tensor {
    const [query, key, value] = projections(at, x_BTD) as [Tensor, Tensor, Tensor];
    const { norms, output } = family.attention;
    const normed = (i: 0 | 1, x: Tensor) =>
      norms?.of === "head" ? norm(`${at}.${norms.names[i]}`, x) : x;
    const scale = config.scale ?? H ** -0.5;
    const rotate = rotationOf(layer);
    const y_BTD = attention(
      { query: normed(0, query), key: normed(1, key), value },
      {
        scale: config.scaleByLayer ? scale / (layer + 1) : scale,
        cap: config.scoreCap,
        positions,
        window: config.windows[layer] ?? Infinity,
        ...(rotate && { rotate }),
        hooks,
        stage: (x) => keep(x, "stage"),
        layer,
        input: x_BTD,
      },
    );
    return dense(`${at}.${output}`, y_BTD, hiddenSize, config.hasOutputBias);
  }

  /** Query, key and value, [B, heads, T, H]. */
  function projections(at: string, x_BTD: Tensor): Tensor[] {
    const { numHeads: N, numKeyValueHeads: K, hasAttentionBias } = config;
    const { names, split } = family.projections;
    const { norms } = family.attention;
    const project = (i: number, heads: number) =>
      dense(`${at}.${names[i]}`, x_BTD, heads * H, hasAttentionBias);
    const product = (x: Tensor, heads: number, i: number) => {
      const name = norms?.of === "all" && norms.names[i];
      if (name) return splitHeads(norm(`${at}.${name}`, keep(x, "product")), heads);
      return keep(splitHeads(x, heads), "product");
    };
    const counts = [N, K, K] as const;
    if (split === "modules") return counts.map((heads, i) => product(project(i, heads), heads, i));
    const fused = project(0, N + 2 * K);
    const part = (x: Tensor, start: number, heads: number) =>
      g.slice(x, -1, start * H, (start + heads) * H);
    const starts = [0, N, N + K];
    if (split === "parts")
      return counts.map((heads, i) => product(part(fused, starts[i]!, heads), heads, i));
    // Each head's query, key and value side by side.
    const perHead = g.reshape(keep(fused, "product"), [...fused.shape.slice(0, 2), N, 3 * H]);
    return counts.map((_, i) => g.transpose(part(perHead, i, 1), [0, 2, 1, 3]));
  }
}
