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

/** Numbers in memory, or elsewhere and read by the stretch: `subarray` gives one, which is not to be written to. */
export interface Stretches<Numbers> {
  readonly length: number;
  subarray(start?: number, end?: number): Numbers;
}

/** Numbers that `read` gives, of them `length` from the one at `from` on. */
export class Stretched<Numbers extends Tokens | Uint8Array> implements Iterable<number> {
  readonly length: number;
  readonly #read: (start: number, end: number) => Numbers;
  readonly #from: number;

  constructor(length: number, read: (start: number, end: number) => Numbers, from = 0) {
    this.length = length;
    this.#read = read;
    this.#from = from;
  }

  subarray(start = 0, end = this.length): Numbers {
    return this.#read(this.#from + start, this.#from + end);
  }

  /** Without reading it. */
  part(start: number, end: number): Stretched<Numbers> {
    return new Stretched(end - start, this.#read, this.#from + start);
  }

  *[Symbol.iterator](): Generator<number> {
    for (const [numbers] of stretchesOf(this)) yield* numbers;
  }
}

/** Parts one behind the other, read as one. */
export function joined<Numbers extends Tokens | Uint8Array>(
  make: (length: number) => Numbers,
  parts: readonly Stretches<Numbers>[],
): Stretched<Numbers> {
  const starts = new Float64Array(parts.length);
  let total = 0;
  for (const [i, { length }] of parts.entries()) {
    starts[i] = total;
    total += length;
  }
  return new Stretched(total, (start, end) => {
    const all = make(end - start);
    let part = partAt(starts, start);
    for (let at = start; at < end; part++) {
      const [of, from] = [parts[part]!, at - starts[part]!];
      const numbers = of.subarray(from, Math.min(of.length, from + end - at));
      all.set(numbers, at - start);
      at += numbers.length;
    }
    return all;
  });
}

/** Of parts that begin at rising places, the last that begins at or before this one. */
export function partAt(starts: Float64Array, place: number): number {
  let [part, next] = [0, starts.length];
  while (next - part > 1) {
    const middle = (part + next) >> 1;
    if (starts[middle]! <= place) part = middle;
    else next = middle;
  }
  return part;
}

/** One value from the tokenizer to the batch. */
export interface TokenizedText {
  readonly tokens: Stretches<Tokens> & Iterable<number>;
  /** For each token 1 where it is a target, else 0; absent where all are. */
  readonly isTarget?: Stretches<Uint8Array> & Iterable<number>;
}

/** As many numbers as pass at a time where all of them are looked at. */
export const CHUNK = 1 << 16;

/** All numbers in order, some at a time, with where each stretch begins. */
export function* stretchesOf<Numbers>(of: Stretches<Numbers>, from = 0, to = of.length) {
  for (let start = from; start < to; start += CHUNK)
    yield [of.subarray(start, Math.min(start + CHUNK, to)), start] as const;
}

/** Makes other documents of those that are read; its name stands for what it does. */
export type Remake = { readonly name: string; of(documents: DocumentStream): DocumentStream };

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

export const sum = (numbers: readonly number[]) => numbers.reduce((all, each) => all + each, 0);

/** The first id that is at least so large, and where it is. */
export function firstFrom(least: number, ids: Stretches<Tokens | BigUint64Array>) {
  for (const [part, start] of stretchesOf(ids))
    for (let i = 0; i < part.length; i++)
      if (part[i]! >= least) return { id: Number(part[i]), at: start + i };
  return undefined;
}

export function countTargets({ tokens, isTarget }: TokenizedText, start = 0, end = tokens.length) {
  if (!isTarget) return end - start;
  let count = 0;
  for (const [part] of stretchesOf(isTarget, start, end)) for (const is of part) count += is;
  return count;
}

/** Ids for a vocabulary: so many zeros, those of a list, or the little-endian ones of a buffer, as Node has them everywhere. */
export const createTokens = (from: number | readonly number[] | ArrayBuffer, vocabSize: number) =>
  vocabSize <= 65_536 ? new Uint16Array(from as number) : new Uint32Array(from as number);
