// What readers give and what becomes of it: documents of segments, then tokens that know which of them count.

import type { Tokens } from "./tokens.ts";

/** A stretch of text that a model learns and is scored on, or, as a prompt, only sees. */
export interface Segment {
  readonly text: string;
  readonly isTarget: boolean;
}

/** Segments joined by nothing. */
export type Document = readonly Segment[];

/** A segment or a stretch of one; documents follow one another in a stream, so that no file has to fit a string. */
export interface Piece extends Segment {
  /** Whether the document ends with this piece. */
  readonly isLast: boolean;
  /** What bytes and words are counted on, where that is not `text` itself. */
  readonly original?: string;
  /** A row without a text, to be skipped. */
  readonly isNull?: boolean;
}

export type DocumentStream = AsyncIterable<Piece> | Iterable<Piece>;

/** One value from the tokenizer to the batch. */
export interface TokenizedText {
  readonly tokens: Tokens;
  /** For each token 1 where it is a target, else 0; absent where all are. */
  readonly isTarget?: Uint8Array;
}

/** Makes other documents of those that are read; its name stands for what it does. */
export interface Remake {
  readonly name: string;
  of(documents: DocumentStream): DocumentStream;
}

/** One document of all, with `separator` between them. */
export const joinedBy = (separator: string): Remake => ({
  name: `joined by ${separator}`,
  async *of(documents) {
    let isBetween = false;
    for await (const { text, isTarget, isLast } of documents) {
      yield { text: isBetween ? separator + text : text, isTarget, isLast: false };
      isBetween = isLast;
    }
    yield { text: "", isTarget: true, isLast: true };
  },
});

/** How many tokens from `start` to `end` are targets. */
export function countTargets({ tokens, isTarget }: TokenizedText, start = 0, end = tokens.length) {
  if (!isTarget) return end - start;
  let count = 0;
  for (let at = start; at < end; at++) count += isTarget[at]!;
  return count;
}
