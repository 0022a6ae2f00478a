// What readers give and what becomes of it: documents in pieces, then tokens that know which of them count.

/** A stretch of a document; documents follow one another in a stream, so that no file has to fit a string. */
export interface Piece {
  readonly text: string;
  /** Whether a model learns and is scored on it, or, as on a prompt, only sees it. */
  readonly isTarget: boolean;
  /** Whether the document ends with this piece. */
  readonly isLast: boolean;
  /** What bytes and words are counted on, where that is not `text` itself. */
  readonly original?: string;
  /** Whether a chat template made the text, with all the special tokens that belong around it. */
  readonly isRendered?: boolean;
  /** Why a row is left out, that cannot be a document. */
  readonly skipped?: string;
}

export type DocumentStream = AsyncIterable<Piece> | Iterable<Piece>;

/** Token ids: two bytes each where the vocabulary allows, else four. */
export type Tokens = Uint16Array | Uint32Array;

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
    let last: Piece | undefined;
    for await (const piece of documents) {
      yield { ...piece, text: last?.isLast ? separator + piece.text : piece.text, isLast: false };
      last = piece;
    }
    yield { ...last, text: "", isTarget: true, isLast: true };
  },
});

/** How many tokens from `start` to `end` are targets. */
export function countTargets({ tokens, isTarget }: TokenizedText, start = 0, end = tokens.length) {
  if (!isTarget) return end - start;
  let count = 0;
  for (let at = start; at < end; at++) count += isTarget[at]!;
  return count;
}

/** Ids for a vocabulary: so many zeros, or the little-endian ones of a buffer, as every platform of Node's has them. */
export function createTokens(from: number | ArrayBuffer, vocabSize: number): Tokens {
  return vocabSize <= 65_536 ? new Uint16Array(from as number) : new Uint32Array(from as number);
}

/** Ids that grow by appending, at twice their memory at most. */
export class TokenBuffer {
  length = 0;
  readonly #vocabSize: number;
  #tokens: Tokens;

  constructor(vocabSize: number, capacity = 1 << 16) {
    this.#vocabSize = vocabSize;
    this.#tokens = createTokens(capacity, vocabSize);
  }

  append(ids: ArrayLike<number>): void {
    const start = this.length;
    this.length += ids.length;
    if (this.length > this.#tokens.length) {
      const smaller = this.view();
      this.#tokens = createTokens(Math.max(this.length, 2 * smaller.length), this.#vocabSize);
      this.#tokens.set(smaller);
    }
    this.#tokens.set(ids, start);
  }

  /** The ids so far. */
  view(): Tokens {
    return this.#tokens.subarray(0, this.length);
  }
}
