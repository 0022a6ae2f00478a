// The graph that generates text: any batch and length, past keys and values in, present ones out, under the names that
// transformers.js and Optimum use. The temperatures are inside, and a token's position is what position_ids says, so
// it is right behind a cache and behind left padding.
// B = batch, T = sequence, P = past, S = P + T keys, K = key-value heads, H = head dim, V = vocabulary

import { buildWith, logitsOf } from "../model/graph.ts";
import type { Precision } from "../core/dtype.ts";
import type { OpenedModel } from "../model/open.ts";
import {
  and,
  cast,
  concat,
  cumSum,
  input,
  integers,
  lessOrEqual,
  reshape,
  scalar,
  sub,
  where,
} from "../graph/build.ts";
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
  const ids = input("input_ids", [B, T], "I64");
  const positionIds = input("position_ids", [B, T], "I64");
  const attention = input("attention_mask", [B, S], "I64");
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
          const past = input(`past_key_values.${layer}.${kind}`, [B, K, P, H], "F32");
          const all = concat([past, cast(present, "F32")], 2);
          presents[`present.${layer}.${kind}`] = all;
          return cast(all, present.dtype);
        };
        return { key: joined("key", key), value: joined("value", value) };
      },
    },
  );
  const outputs = simplify({ logits: cast(logitsOf(graph), "F32"), ...presents });
  verify(outputs);
  return outputs;
}

/** 0 where a query may see a key: a real token at its own position or less than `window` before; [B, 1, T, S]. */
function additiveMask(attention_BS: Tensor, positionIds_BT: Tensor, window: number): Tensor {
  const one = integers([1], []);
  const keys = reshape(sub(cumSum(attention_BS), one), [B, 1, 1, S]);
  const queries = reshape(positionIds_BT, [B, 1, T, 1]);
  const isPast = lessOrEqual(keys, queries);
  const isReal = lessOrEqual(one, reshape(attention_BS, [B, 1, 1, S]));
  const isSeen = and(isPast, isReal);
  const isNear = () => lessOrEqual(sub(queries, integers([window - 1], [])), keys);
  return where(window < Infinity ? and(isSeen, isNear()) : isSeen, scalar(0), scalar(MASKED));
}
