// The graph that generates text: any batch and length, past keys and values in, present ones out, under the names that
// transformers.js and Optimum use. The temperatures are inside, and a token's position is what position_ids says, so
// it is right behind a cache and behind left padding.
// B = batch, T = sequence, P = past, S = P + T keys, K = key-value heads, H = head dim, V = vocabulary

import { buildWith, logitsOf } from "../model/graph.ts";
import type { Precision } from "../core/dtype.ts";
import type { OpenedModel } from "../model/open.ts";
import * as g from "../graph/build.ts";
import { simplify, verify } from "../graph/passes.ts";
import type { Outputs, Tensor } from "../graph/tensor.ts";
import { givenPositions, MASKED } from "../nn/positions.ts";

// transformers.js makes the empty cache from these names: `batch_size` it knows, others are 0.
const [B, T, P] = ["batch_size", "sequence_length", "past_sequence_length"] as const;
const S = `${P} + ${T}`;

/**
 * `logits` [B, T, V] and `present.{layer}.key|value` [B, K, S, H] from `input_ids` and `position_ids` [B, T],
 * `attention_mask` [B, S] and `past_key_values.{layer}.key|value` [B, K, P, H].
 */
export function buildInferenceGraph(opened: OpenedModel, precision: Precision): Outputs {
  const { numKeyValueHeads: K, headDim: H, maxPositions } = opened.model.config;
  const ids = g.input("input_ids", [B, T], "I64");
  const positionIds = g.input("position_ids", [B, T], "I64");
  const attention = g.input("attention_mask", [B, S], "I64");
  const mask = (window: number) => additiveMask(attention, positionIds, window);
  const presents: Record<string, Tensor> = {};
  const graph = buildWith(
    opened,
    ids,
    givenPositions(positionIds, mask, maxPositions),
    { precision },
    {
      cache: (layer, { key, value }) => {
        const joined = (kind: string, present: Tensor) => {
          const past = g.input(`past_key_values.${layer}.${kind}`, [B, K, P, H], "F32");
          const all = g.concat([past, g.cast(present, "F32")], 2);
          presents[`present.${layer}.${kind}`] = all;
          return g.cast(all, present.dtype);
        };
        return { key: joined("key", key), value: joined("value", value) };
      },
    },
  );
  const outputs = simplify({ logits: g.cast(logitsOf(graph), "F32"), ...presents });
  verify(outputs);
  return outputs;
}

/** 0 where a query may see a key: a real token at its own position or less than `window` before; [B, 1, T, S]. */
function additiveMask(attention_BS: Tensor, positionIds_BT: Tensor, window: number): Tensor {
  const one = g.integers([1], []);
  const keys = g.reshape(g.sub(g.cumSum(attention_BS), one), [B, 1, 1, S]);
  const queries = g.reshape(positionIds_BT, [B, 1, T, 1]);
  const isPast = g.lessOrEqual(keys, queries);
  const isReal = g.lessOrEqual(one, g.reshape(attention_BS, [B, 1, 1, S]));
  const isSeen = g.and(isPast, isReal);
  const isNear = () => g.lessOrEqual(g.sub(queries, g.integers([window - 1], [])), keys);
  return g.where(
    window < Infinity ? g.and(isSeen, isNear()) : isSeen,
    g.scalar(0),
    g.scalar(MASKED),
  );
}
