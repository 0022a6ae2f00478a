// Text that continues a prompt, piece by piece as its tokens come.

import type { PreTrainedTokenizer, TextStreamer } from "@huggingface/transformers";

/**
 * A TextStreamer that tells each piece as soon as no later token can change it, instead of word by word.
 * Tokens are decoded behind the one before them: alone, some tokenizers take the space off the first.
 */
export async function continuationStreamer(
  tokenizer: PreTrainedTokenizer,
  onText: (text: string) => void,
): Promise<TextStreamer> {
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
