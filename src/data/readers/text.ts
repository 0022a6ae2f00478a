// Texts as they are read: a stream of pieces, so that no file has to fit into one string.

/** A stretch of a text; the texts of a source follow one another in one stream. */
export interface TextPiece {
  readonly text: string;
  /** Whether the text ends with this piece. */
  readonly isLast: boolean;
  /** What bytes and words are counted on, where that is not `text` itself. */
  readonly original?: string;
}

export type TextStream = AsyncIterable<TextPiece> | Iterable<TextPiece>;

/** Makes one text of all, with `separator` between them. */
export async function* joinTexts(texts: TextStream, separator: string): AsyncGenerator<TextPiece> {
  let isBetween = false;
  for await (const { text, isLast } of texts) {
    yield { text: isBetween ? separator + text : text, isLast: false };
    isBetween = isLast;
  }
  yield { text: "", isLast: true };
}
