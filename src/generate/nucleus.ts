// Nucleus sampling (Holtzman et al., 2020), which @huggingface/transformers lacks in its JavaScript edition.

import type { LogitsProcessorList, Tensor } from "@huggingface/transformers";

/** Masks the tokens outside the topK most probable (0: all), and of those outside the most probable topP. */
export async function nucleus(topK: number, topP: number): Promise<LogitsProcessorList> {
  const { LogitsProcessor, LogitsProcessorList } = await import("@huggingface/transformers");
  class Nucleus extends LogitsProcessor {
    override _call(_: bigint[][], logits: Tensor): Tensor {
      maskTail(logits.data as Float32Array, topK, topP);
      return logits;
    }
  }
  const list = new LogitsProcessorList();
  list.push(new Nucleus());
  return list;
}

/** Sets logits to -Infinity but for the most probable whose probabilities first reach topP; one always stays. */
export function maskTail(logits: Float32Array, topK: number, topP: number): void {
  const order = Uint32Array.from(logits.keys()).sort((a, b) => logits[b]! - logits[a]!);
  const numKept = topK > 0 ? Math.min(topK, order.length) : order.length;
  const weights = Float64Array.from(order.subarray(0, numKept), (i) =>
    Math.exp(logits[i]! - logits[order[0]!]!),
  );
  const needed = topP * weights.reduce((sum, weight) => sum + weight, 0);
  let reached = 0;
  order.forEach((i, rank) => {
    const isKept = rank === 0 || (rank < numKept && reached < needed);
    reached += weights[rank] ?? 0;
    if (!isKept) logits[i] = -Infinity;
  });
}
