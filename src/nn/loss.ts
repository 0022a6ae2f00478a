// Next-token cross-entropy in nats per token, and the label's rank; sums and means are the caller's, since batches
// differ in tokens.
// B = batch, T = sequence, D = hidden, V = vocabulary, R = rows of a chunk

import { fixedShape } from "../core/shape.ts";
import * as g from "../graph/build.ts";
import type { Tensor } from "../graph/tensor.ts";
import { softCap } from "./layers.ts";
import { MASKED } from "./positions.ts";
import { smallTiles } from "./tiling.ts";

/** Of the vocabulary, F32 [.., V], from hidden states [.., D]; `mask` [V] is added to the products. */
export function vocabularyLogits(
  hidden: Tensor,
  head_VD: Tensor,
  cap: number | null,
  mask?: Tensor,
) {
  const product = g.matMul(hidden, head_VD, { transposeB: true });
  return softCap(g.cast(mask ? g.add(product, mask) : product, "F32"), cap);
}

/**
 * In half precision, the output embedding with rows of zeros up to W, a multiple of some, and the mask [W] that leaves
 * them no probability.
 */
function wholeRows(head_VD: Tensor, multiple: number) {
  const { dtype } = head_VD;
  const [rows, width] = fixedShape(head_VD.shape) as [number, number];
  const more = dtype === "F32" ? 0 : (multiple - (rows % multiple)) % multiple;
  if (more === 0) return { rows_WD: head_VD };
  const half = (x: Tensor) => g.cast(x, dtype);
  const mask = Array.from({ length: rows + more }, (_, row) => (row < rows ? 0 : MASKED));
  return {
    rows_WD: g.concat([head_VD, half(g.expand(g.scalar(0), [more, width]))], 0),
    hidden_W: half(g.constant(mask, [rows + more])),
  };
}

/**
 * Of every token, [B, T], from the hidden states and the output embedding [V, D]: `nats`, -ln p(label) =
 * logsumexp(h Wᵀ) - h · W[label], and `ranks`, how many of the vocabulary have a greater logit than the label (0: it is
 * the argmax, alone or among equals). For nats the label's logit comes from its row of W, so that the gradient,
 * softmax(h Wᵀ) W - W[label], needs no scatter over the vocabulary; for ranks from the row of logits, since another sum
 * could differ in the last bit. Both are capped, where logits are. In F32, but for the product with W. The logits of some tokens exist at a time: [R, V]
 * instead of [B · T, V].
 */
export function tokenScores(
  hidden_BTD: Tensor,
  head_VD: Tensor,
  labels_BT: Tensor,
  tiling = smallTiles,
  cap: number | null = null,
): { readonly nats: Tensor; readonly ranks: Tensor } {
  const [batch, length, width] = fixedShape(hidden_BTD.shape) as [number, number, number];
  const rows = batch * length;
  const hidden = g.reshape(hidden_BTD, [rows, width]);
  const labels = g.reshape(labels_BT, [rows]);
  const { rows_WD, hidden_W } = wholeRows(head_VD, cap === null ? tiling.vocabularyRows : 1);
  const vocabulary = Number(rows_WD.shape[0]);
  const lossRows = tiling.lossRows(vocabulary);
  const [nats, ranks]: [Tensor[], Tensor[]] = [[], []];
  for (let start = 0; start < rows; start += lossRows) {
    const end = Math.min(start + lossRows, rows);
    const h_RD = g.slice(hidden, 0, start, end);
    const labels_R = g.slice(labels, 0, start, end);
    const labelRows_RD = g.gather(head_VD, labels_R);
    const products_RD = g.mul(g.cast(h_RD, "F32"), g.cast(labelRows_RD, "F32"));
    const labelLogit_R1 = softCap(g.reduceSum(products_RD, [-1]), cap);
    const logits_RV = vocabularyLogits(h_RD, rows_WD, cap, hidden_W);
    nats.push(g.sub(g.logSumExp(logits_RV), labelLogit_R1));
    const rowStarts = Array.from({ length: end - start }, (_, row) => row * vocabulary);
    const places_R = g.add(labels_R, g.integers(rowStarts, [end - start]));
    const own_R = g.gather(g.reshape(logits_RV, [(end - start) * vocabulary]), places_R);
    const isNoGreater_RV = g.lessOrEqual(logits_RV, g.reshape(own_R, [end - start, 1]));
    ranks.push(g.reduceSum(g.where(isNoGreater_RV, g.scalar(0), g.scalar(1)), [-1]));
  }
  const whole = (chunks: readonly Tensor[]) => g.reshape(g.concat(chunks, 0), [batch, length]);
  return { nats: whole(nats), ranks: whole(ranks) };
}
