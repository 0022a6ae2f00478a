// Next-token cross-entropy in nats per token, and the label's rank; sums and means are the caller's, since batches
// differ in tokens.
// B = batch, T = sequence, D = hidden, V = vocabulary, R = rows of a chunk

import { fixedShape } from "../core/shape.ts";
import {
  add,
  cast,
  concat,
  gather,
  integers,
  lessOrEqual,
  logSumExp,
  matMul,
  mul,
  reduceSum,
  reshape,
  scalar,
  slice,
  sub,
  where,
} from "../graph/build.ts";
import type { Tensor } from "../graph/tensor.ts";
import { smallTiles, type Tiling } from "./tiling.ts";

/**
 * -ln p(label) of every token, [B, T], from the hidden states and the output embedding [V, D]:
 * logsumexp(h Wᵀ) - h · W[label]. The label's logit comes from its row of W, so that the gradient,
 * softmax(h Wᵀ) W - W[label], needs no scatter over the vocabulary. In F32, but for the product with W.
 */
export function tokenNats(
  hidden_BTD: Tensor,
  head_VD: Tensor,
  labels_BT: Tensor,
  tiling = smallTiles,
): Tensor {
  return inChunks(hidden_BTD, head_VD, labels_BT, tiling, (h_RD, labels_R, logits_RV) => {
    const labelRows_RD = gather(head_VD, labels_R);
    const labelLogit_R1 = reduceSum(mul(cast(h_RD, "F32"), cast(labelRows_RD, "F32")), [-1]);
    return sub(logSumExp(logits_RV), labelLogit_R1);
  });
}

/**
 * How many tokens of the vocabulary have a greater logit than the label, [B, T]: 0 where the label is the argmax, alone
 * or among equals. The label's logit is the one in the row: another sum of it could differ in the last bit.
 */
export function tokenRanks(
  hidden_BTD: Tensor,
  head_VD: Tensor,
  labels_BT: Tensor,
  tiling = smallTiles,
): Tensor {
  return inChunks(hidden_BTD, head_VD, labels_BT, tiling, (_, labels_R, logits_RV) => {
    const [rows, vocabulary] = fixedShape(logits_RV.shape) as [number, number];
    const starts = Array.from({ length: rows }, (_, row) => row * vocabulary);
    const places_R = add(labels_R, integers(starts, [rows]));
    const labelLogit_R = gather(reshape(logits_RV, [rows * vocabulary]), places_R);
    const isNoGreater_RV = lessOrEqual(logits_RV, reshape(labelLogit_R, [rows, 1]));
    return reduceSum(where(isNoGreater_RV, scalar(0), scalar(1)), [-1]);
  });
}

/** One value a token, [B, T], from its hidden state, label and logits, which exist for some at a time: [R, V]. */
function inChunks(
  hidden_BTD: Tensor,
  head_VD: Tensor,
  labels_BT: Tensor,
  tiling: Tiling,
  valueOf: (h_RD: Tensor, labels_R: Tensor, logits_RV: Tensor) => Tensor,
): Tensor {
  const [batch, length, width] = fixedShape(hidden_BTD.shape) as [number, number, number];
  const rows = batch * length;
  const hidden = reshape(hidden_BTD, [rows, width]);
  const labels = reshape(labels_BT, [rows]);
  const lossRows = tiling.lossRows(Number(head_VD.shape[0]));
  const chunks: Tensor[] = [];
  for (let start = 0; start < rows; start += lossRows) {
    const end = Math.min(start + lossRows, rows);
    const h_RD = slice(hidden, 0, start, end);
    const logits_RV = cast(matMul(h_RD, head_VD, { transposeB: true }), "F32");
    chunks.push(valueOf(h_RD, slice(labels, 0, start, end), logits_RV));
  }
  return reshape(concat(chunks, 0), [batch, length]);
}
