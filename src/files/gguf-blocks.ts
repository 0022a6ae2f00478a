// The number formats of ggml that are read: blocks of integers with a common factor, as ggml-quants.c gives them back.

import { f16ToF32 } from "../core/dtype.ts";

interface BlockFormat {
  /** Values of a block, and its bytes. */
  readonly values: number;
  readonly bytes: number;
  /** Value i of the block at a byte, for each i in turn; absent where the bytes are values themselves. */
  readonly decode?: (block: DataView, at: number) => (i: number) => number;
}

const half = (block: DataView, at: number) => f16ToF32(block.getUint16(at, true));
/** A product as C computes it. */
const times = (a: number, b: number) => Math.fround(a * b);

/** d · (q - offset): q of 4 bits, the first half of the values in the lower ones, and a fifth bit where `fifth` is set. */
const simple =
  (offset: number, low: number, fifth?: number): NonNullable<BlockFormat["decode"]> =>
  (block, at) => {
    const d = half(block, at);
    const high = fifth === undefined ? 0 : block.getUint32(at + fifth, true);
    return (i) => {
      const four = (block.getUint8(at + low + (i & 15)) >> (i & 16 ? 4 : 0)) & 15;
      return d * (four + (((high >>> i) & 1) << 4) - offset);
    };
  };

/** d · scale · q - dmin · least, scale and least of 6 bits for 32 values; q of 4 bits, and a fifth where it is set. */
const nested =
  (low: number, fifth?: number): NonNullable<BlockFormat["decode"]> =>
  (block, at) => {
    const [d, dmin] = [half(block, at), half(block, at + 2)];
    const packed = (i: number) => block.getUint8(at + 4 + i);
    /** The first four in the lower 6 bits of a byte, the others in 4 bits and the upper 2 of the first ones'. */
    const six = (group: number, shift: 0 | 4) =>
      group < 4
        ? packed(group + shift) & 63
        : ((packed(group + 4) >> shift) & 15) | ((packed(group - 4 + shift) >> 6) << 4);
    const groups = Array.from({ length: 8 }, (_, group) => [
      times(d, six(group, 0)),
      times(dmin, six(group, 4)),
    ]) as [number, number][];
    return (i) => {
      const [group, within] = [i >> 5, i & 31];
      const [factor, least] = groups[group]!;
      const four =
        (block.getUint8(at + low + (group >> 1) * 32 + within) >> ((group & 1) * 4)) & 15;
      const high = fifth === undefined ? 0 : (block.getUint8(at + fifth + within) >> group) & 1;
      return times(factor, four + (high << 4)) - least;
    };
  };

export const ggmlFormats = {
  F32: { values: 1, bytes: 4 },
  F16: { values: 1, bytes: 2 },
  BF16: { values: 1, bytes: 2 },
  Q4_0: { values: 32, bytes: 18, decode: simple(8, 2) },
  Q5_0: { values: 32, bytes: 22, decode: simple(16, 6, 2) },
  Q8_0: {
    values: 32,
    bytes: 34,
    decode: (block: DataView, at: number) => {
      const d = half(block, at);
      return (i: number) => d * block.getInt8(at + 2 + i);
    },
  },
  Q4_K: { values: 256, bytes: 144, decode: nested(16) },
  Q5_K: { values: 256, bytes: 176, decode: nested(48, 16) },
  // d · scale · (q - 32), a scale for 16 values; of each 128, pairs of 32 share bytes of low bits, all four of high ones.
  Q6_K: {
    values: 256,
    bytes: 210,
    decode: (block: DataView, at: number) => {
      const d = half(block, at + 208);
      return (i: number) => {
        const [part, quarter, within] = [i >> 7, (i >> 5) & 3, i & 31];
        const low =
          block.getUint8(at + part * 64 + (quarter & 1) * 32 + within) >> ((quarter >> 1) * 4);
        const high = block.getUint8(at + 128 + part * 32 + within) >> (quarter * 2);
        return (
          times(d, block.getInt8(at + 192 + (i >> 4))) * (((low & 15) | ((high & 3) << 4)) - 32)
        );
      };
    },
  },
} as const satisfies Record<string, BlockFormat>;

export type GgmlFormat = keyof typeof ggmlFormats;

/** Names by the number in files; those without an entry above are only named. */
export const ggmlNames: readonly (string | undefined)[] =
  `F32 F16 Q4_0 Q4_1 Q4_2 Q4_3 Q5_0 Q5_1 Q8_0 Q8_1 Q2_K Q3_K Q4_K Q5_K Q6_K Q8_K IQ2_XXS IQ2_XS IQ3_XXS IQ1_S IQ4_NL
  IQ3_S IQ2_S IQ4_XS I8 I16 I32 I64 F64 IQ1_M BF16`.split(/\s+/);

/** The values of whole blocks. */
export function decodeBlocks(
  { values, bytes, decode }: Required<BlockFormat>,
  stored: Uint8Array,
): Float32Array {
  const view = new DataView(stored.buffer, stored.byteOffset, stored.length);
  const all = new Float32Array((stored.length / bytes) * values);
  for (let block = 0; block * bytes < stored.length; block++) {
    const value = decode(view, block * bytes);
    for (let i = 0; i < values; i++) all[block * values + i] = value(i);
  }
  return all;
}
