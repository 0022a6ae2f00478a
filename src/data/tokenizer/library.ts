// What @huggingface/tokenizers does for us: expressions in JavaScript's words, and tokens back into text. Its own way of
// encoding is not used: it is slow, and differs from the reference at many edges.

import * as library from "@huggingface/tokenizers";
import type { TokenizerJson } from "./tokenizer-json.ts";

// Its types name files without their endings, which is to say: none.
const { SplitPreTokenizer, Tokenizer } = library as unknown as {
  SplitPreTokenizer: new (step: object) => { readonly pattern: RegExp };
  Tokenizer: new (
    json: object,
    config: object,
  ) => { decode: (ids: readonly number[], options: object) => string };
};

/** An expression as Oniguruma has it, which tokenizer files use. */
export function toJavaScript(source: string): RegExp {
  return new SplitPreTokenizer({ pattern: { Regex: source } }).pattern;
}

export function decodeWith({ model, ...json }: TokenizerJson, ids: readonly number[]): string {
  if (ids.length === 0) return "";
  const only = { normalizer: null, pre_tokenizer: null, post_processor: null };
  const whole = { decoder: null, ...json, ...only, model: { ...model, merges: [] } };
  return new Tokenizer(whole, {}).decode(ids, { clean_up_tokenization_spaces: false });
}
