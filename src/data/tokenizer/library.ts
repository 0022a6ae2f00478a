// What @huggingface/tokenizers does for us. Its encoding as a whole is slow, and differs from the reference at many edges.

import * as library from "@huggingface/tokenizers";

// Its types name files without their endings, which is to say: none.
export const { SequencePostProcessor, SplitPreTokenizer, WordPiece } = library as unknown as {
  SequencePostProcessor: new (step: object) => {
    post_process: (tokens: readonly string[]) => { readonly tokens: readonly string[] };
  };
  SplitPreTokenizer: new (step: object) => { readonly pattern: RegExp };
  WordPiece: new (model: object) => { encode: (words: readonly string[]) => readonly string[] };
};

/** A text, or an expression as Oniguruma has it. */
export function expressionOf(pattern: object = {}): RegExp {
  if (Object.keys(pattern).length === 0) throw new Error("a pattern is absent");
  return new SplitPreTokenizer({ pattern }).pattern;
}
