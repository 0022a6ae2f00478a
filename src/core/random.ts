// Seeded random numbers: xoshiro128** (Blackman and Vigna, 2018).

export type Random = ReturnType<typeof createRandom>;

/** A generator for one purpose: the same seed with another stream number, or with one more, gives unrelated values. */
export function createRandom(seed: number, stream = 0, ...more: readonly number[]) {
  // Splitmix-style hashing turns small, similar seeds into unrelated states.
  let hash = 0;
  const next = (): number => {
    hash = (hash + 0x9e3779b9) | 0;
    let z = hash;
    z = Math.imul(z ^ (z >>> 16), 0x21f0aaad);
    z = Math.imul(z ^ (z >>> 15), 0x735a2d97);
    return (z ^ (z >>> 15)) >>> 0;
  };
  for (const word of [seed, Math.floor(seed / 2 ** 32), stream, ...more]) hash = next() ^ word;
  return xoshiro([next(), next(), next(), next()]);
}

/** The generator from four words of 32 bits, not all zero. */
export function xoshiro([a, b, c, d]: [number, number, number, number]) {
  function word(): number {
    const result = Math.imul(rotateLeft(Math.imul(b, 5), 7), 9) >>> 0;
    const shifted = b << 9;
    c ^= a;
    d ^= b;
    b ^= c;
    a ^= d;
    c ^= shifted;
    d = rotateLeft(d, 11);
    return result;
  }

  /** Uniform in [0, 1), 53 random bits. */
  const uniform = (): number => ((word() >>> 5) * 2 ** 26 + (word() >>> 6)) / 2 ** 53;

  return {
    uniform,
    /** Standard normal (Box and Muller, 1958); 1 − uniform() is never zero, so the logarithm is finite. */
    normal: () => Math.sqrt(-2 * Math.log(1 - uniform())) * Math.cos(2 * Math.PI * uniform()),
    /** Shuffles in place, every order equally likely (Fisher and Yates). */
    shuffle(items: Int32Array) {
      for (let last = items.length - 1; last > 0; last--) {
        const other = Math.floor(uniform() * (last + 1));
        [items[last], items[other]] = [items[other]!, items[last]!];
      }
    },
  };
}

const rotateLeft = (word: number, bits: number) => (word << bits) | (word >>> (32 - bits));
