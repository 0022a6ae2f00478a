// What @huggingface/transformers is given for its loop: text piece by piece as its tokens come, and the nucleus. Apart
// from the options, so that the library's types need none of the client's.

import type * as transformers from "@huggingface/transformers";

/**
 * A TextStreamer that tells each piece as soon as no later token can change it, instead of word by word.
 * Tokens are decoded behind the one before them: alone, some tokenizers take the space off the first.
 */
export async function continuationStreamer(
  tokenizer: transformers.PreTrainedTokenizer,
  onText: (text: string) => void,
): Promise<transformers.TextStreamer> {
  const { TextStreamer } = await import("@huggingface/transformers");
  const decode = (ids: readonly bigint[]) =>
    ids.length === 0 ? "" : tokenizer.decode([...ids], { skip_special_tokens: true });

  class ContinuationStreamer extends TextStreamer {
    #before: bigint[] | undefined;
    #pending: bigint[] = [];

    override put([ids]: [bigint[]]): void {
      if (this.#before) this.#pending.push(...ids);
      this.#before ??= ids.slice(-1); // the prompt
      // U+FFFD: a character of which only the first bytes are there.
      if (!decode([...this.#before, ...this.#pending]).endsWith("\ufffd")) this.#tell();
    }

    override end(): void {
      this.#tell();
    }

    #tell(): void {
      const before = this.#before ?? [];
      const text = decode([...before, ...this.#pending]).slice(decode(before).length);
      if (this.#pending.length > 0) this.#before = this.#pending.slice(-1);
      this.#pending = [];
      if (text) onText(text);
    }
  }
  return new ContinuationStreamer(tokenizer);
}

/** What masks all but the nucleus, which @huggingface/transformers lacks in its JavaScript edition. */
export async function nucleus(topK: number, topP: number) {
  const { LogitsProcessor, LogitsProcessorList } = await import("@huggingface/transformers");
  class Nucleus extends LogitsProcessor {
    override _call(_: bigint[][], logits: transformers.Tensor): transformers.Tensor {
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
