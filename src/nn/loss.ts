// Next-token cross-entropy in nats per token; sums and means are the caller's, since batches differ in tokens.
// B = batch, T = sequence, D = hidden, V = vocabulary, R = rows of a chunk

import { fixedShape } from "../core/shape.ts";
import {
  cast,
  concat,
  gather,
  logSumExp,
  matMul,
  mul,
  reduceSum,
  reshape,
  slice,
  sub,
} from "../graph/build.ts";
import type { Tensor } from "../graph/tensor.ts";
import { smallTiles } from "./tiling.ts";

/**
 * -ln p(label) of every token, [B, T], from the hidden states and the output embedding [V, D]:
 * logsumexp(h Wᵀ) - h · W[label]. The label's logit comes from its row of W, so that the gradient,
 * softmax(h Wᵀ) W - W[label], needs no scatter over the vocabulary. In F32, but for the product with W.
 * The logits of some tokens exist at a time: [R, V] instead of [B · T, V].
 */
export function tokenNats(
  hidden_BTD: Tensor,
  head_VD: Tensor,
  labels_BT: Tensor,
  tiling = smallTiles,
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
    const labelRows_RD = gather(head_VD, slice(labels, 0, start, end));
    const labelLogit_R1 = reduceSum(mul(cast(h_RD, "F32"), cast(labelRows_RD, "F32")), [-1]);
    const logits_RV = cast(matMul(h_RD, head_VD, { transposeB: true }), "F32");
    chunks.push(sub(logSumExp(logits_RV), labelLogit_R1));
  }
  return reshape(concat(chunks, 0), [batch, length]);
}
