// The number formats of ggml that are read: blocks of integers with a common factor, as ggml-quants.c gives them back.

import { f16ToF32 } from "../core/dtype.ts";

/** Writes the values of the block that begins at a byte, from `out` on. */
type Decode = (bytes: Uint8Array, at: number, to: Float32Array, out: number) => void;

interface BlockFormat {
  /** Values of a block, and its bytes. */
  readonly values: number;
  readonly bytes: number;
  /** Absent where the bytes are values themselves. */
  readonly decode?: Decode;
}

const half = (bytes: Uint8Array, at: number) => f16ToF32(bytes[at]! | (bytes[at + 1]! << 8));
/** A product as C computes it. */
const times = (a: number, b: number) => Math.fround(a * b);

/** d · (q - offset), q of 4 bits: the lower ones of 16 bytes, then the upper; and a fifth where `fifth` is set. */
const simple =
  (offset: number, low: number, fifth?: number): Decode =>
  (bytes, at, to, out) => {
    const d = half(bytes, at);
    for (let i = 0; i < 16; i++) {
      const pair = bytes[at + low + i]!;
      let [first, second] = [pair & 15, pair >> 4];
      if (fifth !== undefined) {
        first |= ((bytes[at + fifth + (i >> 3)]! >> (i & 7)) & 1) << 4;
        second |= ((bytes[at + fifth + 2 + (i >> 3)]! >> (i & 7)) & 1) << 4;
      }
      to[out + i] = d * (first - offset);
      to[out + i + 16] = d * (second - offset);
    }
  };

/** d · scale · q - dmin · least, scale and least of 6 bits for 32 values; q of 4 bits, and a fifth where it is set. */
const nested =
  (low: number, fifth?: number): Decode =>
  (bytes, at, to, out) => {
    const [d, dmin] = [half(bytes, at), half(bytes, at + 2)];
    /** Those of the first four groups in the lower 6 bits of a byte, the others in 4 bits and the upper 2 of those. */
    const six = (group: number, shift: 0 | 4) => {
      const first = at + 4 + group + shift;
      if (group < 4) return bytes[first]! & 63;
      return ((bytes[at + 8 + group]! >> shift) & 15) | ((bytes[first - 4]! >> 6) << 4);
    };
    for (let group = 0; group < 8; group++) {
      const [factor, least] = [times(d, six(group, 0)), times(dmin, six(group, 4))];
      const [from, shift] = [at + low + (group >> 1) * 32, (group & 1) * 4];
      for (let i = 0; i < 32; i++) {
        let q = (bytes[from + i]! >> shift) & 15;
        if (fifth !== undefined) q |= ((bytes[at + fifth + i]! >> group) & 1) << 4;
        to[out + group * 32 + i] = times(factor, q) - least;
      }
    }
  };

/** d · scale · (q - 32), a scale for 16 values; 32 and 32 of each 128 share bytes of low bits, all four those of high. */
const sixBits: Decode = (bytes, at, to, out) => {
  const d = half(bytes, at + 208);
  for (let group = 0; group < 16; group++) {
    const factor = times(d, (bytes[at + 192 + group]! << 24) >> 24);
    const [part, quarter, within] = [group >> 3, (group >> 1) & 3, (group & 1) * 16];
    const low = at + part * 64 + (quarter & 1) * 32 + within;
    const high = at + 128 + part * 32 + within;
    for (let i = 0; i < 16; i++) {
      const four = (bytes[low + i]! >> ((quarter >> 1) * 4)) & 15;
      const q = four | (((bytes[high + i]! >> (quarter * 2)) & 3) << 4);
      to[out + group * 16 + i] = factor * (q - 32);
    }
  }
};

const eightBits: Decode = (bytes, at, to, out) => {
  const d = half(bytes, at);
  for (let i = 0; i < 32; i++) to[out + i] = d * ((bytes[at + 2 + i]! << 24) >> 24);
};

export const ggmlFormats = {
  F32: { values: 1, bytes: 4 },
  F16: { values: 1, bytes: 2 },
  BF16: { values: 1, bytes: 2 },
  Q4_0: { values: 32, bytes: 18, decode: simple(8, 2) },
  Q5_0: { values: 32, bytes: 22, decode: simple(16, 6, 2) },
  Q8_0: { values: 32, bytes: 34, decode: eightBits },
  Q4_K: { values: 256, bytes: 144, decode: nested(16) },
  Q5_K: { values: 256, bytes: 176, decode: nested(48, 16) },
  Q6_K: { values: 256, bytes: 210, decode: sixBits },
} as const satisfies Record<string, BlockFormat>;

export type GgmlFormat = keyof typeof ggmlFormats;

/** Names by the number in files; those without an entry above are only named. */
export const ggmlNames: readonly (string | undefined)[] =
  `F32 F16 Q4_0 Q4_1 Q4_2 Q4_3 Q5_0 Q5_1 Q8_0 Q8_1 Q2_K Q3_K Q4_K Q5_K Q6_K Q8_K IQ2_XXS IQ2_XS IQ3_XXS IQ1_S IQ4_NL
  IQ3_S IQ2_S IQ4_XS I8 I16 I32 I64 F64 IQ1_M BF16`.split(/\s+/);

/** The values of whole blocks. */
export function decodeBlocks({ values, bytes, decode }: Required<BlockFormat>, stored: Uint8Array) {
  const all = new Float32Array((stored.length / bytes) * values);
  for (let block = 0; block * bytes < stored.length; block++)
    decode(stored, block * bytes, all, block * values);
  return all;
}
