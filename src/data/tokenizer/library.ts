// What @huggingface/tokenizers does for us: expressions in JavaScript's words, and tokens back into text. Its own way of
// encoding is not used: it is slow, and differs from the reference at many edges.

import * as library from "@huggingface/tokenizers";
import type { JsonObject } from "../../files/json.ts";

// Its types name files without their endings, which is to say: none.
export const { SequencePostProcessor, SplitPreTokenizer, Tokenizer, WordPiece } =
  library as unknown as {
    SequencePostProcessor: new (step: object) => {
      post_process: (tokens: readonly string[]) => { readonly tokens: readonly string[] };
    };
    SplitPreTokenizer: new (step: object) => { readonly pattern: RegExp };
    Tokenizer: new (
      json: object,
      config: object,
    ) => { decode: (ids: readonly number[], options: object) => string };
    WordPiece: new (model: object) => { encode: (words: readonly string[]) => readonly string[] };
  };

/** A text, or an expression as Oniguruma has it. */
export function expressionOf(pattern: object = {}): RegExp {
  if (Object.keys(pattern).length === 0) throw new Error("a pattern is absent");
  return new SplitPreTokenizer({ pattern }).pattern;
}

export function decodeWith({ model, ...json }: JsonObject, ids: readonly number[]): string {
  if (ids.length === 0) return "";
  const only = { normalizer: null, pre_tokenizer: null, post_processor: null };
  const whole = { decoder: null, ...json, ...only, model: { ...(model as object), merges: [] } };
  return new Tokenizer(whole, {}).decode(ids, { clean_up_tokenization_spaces: false });
}
