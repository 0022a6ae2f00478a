// Token ids in memory: two bytes each where the vocabulary allows, else four.

export type Tokens = Uint16Array | Uint32Array;

/** Zeroed ids for a vocabulary: uint16 up to 65,536 entries, uint32 above. */
export function createTokens(length: number, vocabSize: number): Tokens {
  return vocabSize <= 65_536 ? new Uint16Array(length) : new Uint32Array(length);
}

/** Views a buffer of little-endian ids (every platform that Node runs on is little-endian). */
export function viewTokens(bytes: ArrayBuffer, vocabSize: number): Tokens {
  return vocabSize <= 65_536 ? new Uint16Array(bytes) : new Uint32Array(bytes);
}

/** Ids that grow by appending, at twice their memory at most. */
export class TokenBuffer {
  readonly #vocabSize: number;
  #tokens: Tokens;
  #length = 0;

  constructor(vocabSize: number, capacity = 1 << 16) {
    this.#vocabSize = vocabSize;
    this.#tokens = createTokens(capacity, vocabSize);
  }

  get length(): number {
    return this.#length;
  }

  append(ids: ArrayLike<number>): void {
    const end = this.#length + ids.length;
    if (end > this.#tokens.length) {
      const larger = createTokens(Math.max(end, 2 * this.#tokens.length), this.#vocabSize);
      larger.set(this.#tokens.subarray(0, this.#length));
      this.#tokens = larger;
    }
    this.#tokens.set(ids, this.#length);
    this.#length = end;
  }

  /** The ids so far. */
  view(): Tokens {
    return this.#tokens.subarray(0, this.#length);
  }
}
