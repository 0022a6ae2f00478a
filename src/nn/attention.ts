// Causal self-attention, multi-head or grouped-query, with optional hooks that scale query, key and value.
// B = batch, T = sequence, S = keys, N = heads, K = key-value heads, G = N / K, H = head dim, R = rows of a block

import { add, cast, concat, matMul, reshape, slice, softmax, transpose } from "../graph/build.ts";
import type { Dim, Shape } from "../core/shape.ts";
import type { Tensor } from "../graph/tensor.ts";
import { softCap } from "./layers.ts";
import type { CausalMask, Positions } from "./positions.ts";

export interface Projections {
  /** [B, N, T, H] */
  readonly query: Tensor;
  /** [B, K, T, H] */
  readonly key: Tensor;
  /** [B, K, T, H] */
  readonly value: Tensor;
}

type Cached = Omit<Projections, "query">;
export type Projection = keyof Projections;
export const PROJECTIONS = ["query", "key", "value"] as const satisfies readonly Projection[];

/** Where the weights of a layer's query, key or value lie, head by head. */
export interface ProjectionPlace {
  /** `<module>.weight`, and `<module>.bias` where there is one. */
  readonly module: string;
  /** Of the weight's outputs. */
  readonly axis: 0 | 1;
  /** The first output of head h is first + h · stride; the head's others follow. */
  readonly first: number;
  readonly stride: number;
}

export interface AttentionOptions {
  /** Factor of the logits, usually 1 / √H. */
  readonly scale: number;
  /** Soft cap of the logits; null: none. */
  readonly cap?: number | null;
  readonly positions: Positions;
  /** Keys that a query sees, its own among them; all by default. */
  readonly window?: number;
  /** Applied to query and key, after the hooks. */
  readonly rotate?: (x: Tensor) => Tensor;
  readonly hooks: AttentionHooks;
  /** Marks where the stages of a long window begin; gives it back. */
  readonly stage?: (x: Tensor) => Tensor;
  readonly layer: number;
  /** What the projections are made of, [B, T, D]. */
  readonly input: Tensor;
}

type Place = Pick<AttentionOptions, "layer" | "window" | "input">;

/** What may be inserted into every layer's attention; a hook that is absent leaves no trace in the graph. */
export interface AttentionHooks {
  /** Rescales the projections before the rotary embedding. */
  readonly scale?: (projections: Projections, place: Place) => Projections;
  /** Joins past keys and values in front of the present ones. */
  readonly cache?: (layer: number, present: Cached) => Cached;
  /** Sees each block's masked logits and what the softmax made of them, [B, N, R, S]. */
  readonly attended?: (layer: number, logits: Tensor, weights: Tensor) => void;
}

/** And into every linear layer of a block. */
export interface Hooks extends AttentionHooks {
  /** What becomes of a module's y, made of x. */
  readonly linear?: (module: string, x: Tensor, y: Tensor) => Tensor;
}

/** [B, T, D] as [B, heads, T, D / heads] */
export function splitHeads(x_BTD: Tensor, heads: number): Tensor {
  const [batch, length, width] = x_BTD.shape;
  const x_BTNH = reshape(x_BTD, [batch!, length!, heads, Number(width) / heads]);
  return transpose(x_BTNH, [0, 2, 1, 3]);
}

/** Attention of every query to the keys it may see; [B, T, N · H]. */
export function attention(projections: Projections, options: AttentionOptions): Tensor {
  const { hooks, layer, positions, rotate, window = Infinity } = options;
  const scaled = hooks.scale?.(projections, options) ?? projections;
  const query = rotate ? rotate(scaled.query) : scaled.query;
  const present = { key: rotate ? rotate(scaled.key) : scaled.key, value: scaled.value };
  const { key, value } = hooks.cache?.(layer, present) ?? present;
  const { mask } = positions;
  const y_BNTH =
    "given" in mask
      ? attend({ query, key, value }, mask.given(window), options)
      : concat(causalBlocks({ query, key, value }, mask, options), 2);
  const [batch, heads, length, headDim] = y_BNTH.shape;
  const merged = Number(heads) * Number(headDim);
  return reshape(transpose(y_BNTH, [0, 2, 1, 3]), [batch!, length!, merged]);
}

/** So many blocks of queries are computed and derived in stages, one in memory at a time. */
const STAGED_BLOCKS = 16;

/** By blocks of queries that share their keys: what is later than a block or before its window is never computed. */
function causalBlocks(all: Projections, mask: CausalMask, options: AttentionOptions): Tensor[] {
  const { query, key, value } = all;
  const { window = Infinity } = options;
  const length = Number(query.shape[2]);
  const rows = Math.min(mask.queryRows, length);
  const numBlocks = Math.ceil(length / rows);
  const stage = numBlocks >= STAGED_BLOCKS ? options.stage : undefined;
  return Array.from({ length: numBlocks }, (_, block) => {
    const start = block * rows;
    const end = Math.min(start + rows, length);
    const from = Math.max(0, start - window + 1); // the first key that the block's first row sees
    const visible = { key: slice(key, 2, from, end), value: slice(value, 2, from, end) };
    const asking = slice(query, 2, start, end);
    const own = mask.causal(end - start, end - from, window, end, stage?.(asking));
    return attend({ query: asking, ...visible }, own, options);
  });
}

/**
 * softmax(scale · q kᵀ + mask) v, the logits capped before the mask, the softmax in F32. Queries of a group share their
 * keys: they are rows of one product.
 */
function attend(projections: Projections, mask: Tensor, options: AttentionOptions): Tensor {
  const { query: q_BNTH, key: k_BKSH, value: v_BKSH } = projections;
  const { scale, cap = null, hooks, layer } = options;
  const [batch, heads, rows, headDim] = q_BNTH.shape;
  const [, groups, keys] = k_BKSH.shape;
  const perGroup = Number(heads) / Number(groups);
  const groupRows = typeof rows === "number" ? perGroup * rows : `${perGroup} ${rows}`;
  const shaped = (x: Tensor, shape: Shape) => (perGroup === 1 ? x : reshape(x, shape));
  const grouped = (x: Tensor, width: Dim) => shaped(x, [batch!, groups!, groupRows, width]);
  const perHead = (x: Tensor, width: Dim) => shaped(x, [batch!, heads!, rows!, width]);

  const logits = matMul(grouped(q_BNTH, headDim!), k_BKSH, { transposeB: true, alpha: scale });
  const capped_BNTS = softCap(cast(perHead(logits, keys!), "F32"), cap);
  const masked_BNTS = add(capped_BNTS, mask);
  const weights_BNTS = softmax(masked_BNTS);
  hooks.attended?.(layer, masked_BNTS, weights_BNTS);
  const rows_BKRS = grouped(cast(weights_BNTS, v_BKSH.dtype), keys!);
  return perHead(matMul(rows_BKRS, v_BKSH), headDim!);
}
