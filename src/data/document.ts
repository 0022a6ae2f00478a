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
}

export type DocumentStream = AsyncIterable<Piece> | Iterable<Piece>;

/** One value from the tokenizer to the batch. */
export interface TokenizedText {
  readonly tokens: Tokens;
  /** For each token 1 where it is a target, else 0; absent where all are. */
  readonly isTarget?: Uint8Array;
}

export function* piecesOf(document: Document): Generator<Piece> {
  for (const [i, segment] of document.entries())
    yield { ...segment, isLast: i === document.length - 1 };
}

/** Makes one document of all, with `separator` between them. */
export async function* joinDocuments(
  documents: DocumentStream,
  separator: string,
): AsyncGenerator<Piece> {
  let isBetween = false;
  for await (const { text, isTarget, isLast } of documents) {
    yield { text: isBetween ? separator + text : text, isTarget, isLast: false };
    isBetween = isLast;
  }
  yield { text: "", isTarget: true, isLast: true };
}

/** How many tokens from `start` to `end` are targets. */
export function countTargets({ tokens, isTarget }: TokenizedText, start = 0, end = tokens.length) {
  if (!isTarget) return end - start;
  let count = 0;
  for (let at = start; at < end; at++) count += isTarget[at]!;
  return count;
}

/** Labels of a stretch of a text, put at `at`: its tokens, −1 for those that are no targets. */
export function putLabels(
  labels: Int32Array,
  at: number,
  { tokens, isTarget }: TokenizedText,
  start: number,
  end: number,
): void {
  labels.set(tokens.subarray(start, end), at);
  if (!isTarget) return;
  for (let i = start; i < end; i++) if (isTarget[i] === 0) labels[at + i - start] = -1;
}
