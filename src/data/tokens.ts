// Token ids in memory: two bytes each where the vocabulary allows, else four.

export type Tokens = Uint16Array | Uint32Array;

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
