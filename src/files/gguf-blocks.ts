// The number formats of ggml that are read: integers times the factors of their blocks, plus biases in some, as
// ggml-quants.c gives them back.

import { f16ToF32 } from "../core/dtype.ts";

/** Integers, and for each block of them a factor and what is added after it: -0, which changes nothing, where nothing is. */
export type Blocks = Readonly<{ codes: Int8Array } & Record<"factors" | "biases", Float32Array>>;

/** Reads what is stored together from a byte on; its first code is that of the number `out`. */
type Read = (bytes: Uint8Array, at: number, to: Blocks, out: number) => void;

/** Values that are stored together, and their bytes, which are these values where it is no BlockFormat. */
type Format = Readonly<Record<"values" | "bytes", number>>;

/** Bits that hold a code; values of a block; where its factor is exact. Codes begin at 0 where there are biases. */
interface BlockFormat extends Format {
  readonly bits: 4 | 8;
  readonly block: number;
  readonly factors: "F16" | "F32";
  readonly shift: "biases" | null;
  readonly read: Read;
}

const half = (bytes: Uint8Array, at: number) => f16ToF32(bytes[at]! | (bytes[at + 1]! << 8));

/** d · (q - offset), q of 4 bits: the lower ones of 16 bytes, then the upper; and a fifth where `fifth` is set. */
const simple =
  (offset: number, low: number, fifth?: number): Read =>
  (bytes, at, { codes, factors }, out) => {
    factors[out / 32] = half(bytes, at);
    for (let i = 0; i < 16; i++) {
      const pair = bytes[at + low + i]!;
      let [first, second] = [pair & 15, pair >> 4];
      if (fifth !== undefined) {
        first |= ((bytes[at + fifth + (i >> 3)]! >> (i & 7)) & 1) << 4;
        second |= ((bytes[at + fifth + 2 + (i >> 3)]! >> (i & 7)) & 1) << 4;
      }
      codes[out + i] = first - offset;
      codes[out + i + 16] = second - offset;
    }
  };

/** d · scale · q - dmin · least, scale and least of 6 bits for 32 values; q of 4 bits, and a fifth where it is set. */
const nested =
  (low: number, fifth?: number): Read =>
  (bytes, at, { codes, factors, biases }, out) => {
    const [d, dmin] = [half(bytes, at), half(bytes, at + 2)];
    /** Those of the first four groups in the lower 6 bits of a byte, the others in 4 bits and the upper 2 of those. */
    const six = (group: number, shift: 0 | 4) => {
      const first = at + 4 + group + shift;
      if (group < 4) return bytes[first]! & 63;
      return ((bytes[at + 8 + group]! >> shift) & 15) | ((bytes[first - 4]! >> 6) << 4);
    };
    for (let group = 0; group < 8; group++) {
      factors[out / 32 + group] = d * six(group, 0);
      biases[out / 32 + group] = -(dmin * six(group, 4));
      const [from, shift] = [at + low + (group >> 1) * 32, (group & 1) * 4];
      for (let i = 0; i < 32; i++) {
        let q = (bytes[from + i]! >> shift) & 15;
        if (fifth !== undefined) q |= ((bytes[at + fifth + i]! >> group) & 1) << 4;
        codes[out + group * 32 + i] = q;
      }
    }
  };

/** d · scale · (q - 32), a scale for 16 values; 32 and 32 of each 128 share bytes of low bits, all four those of high. */
const sixBits: Read = (bytes, at, { codes, factors }, out) => {
  const d = half(bytes, at + 208);
  for (let group = 0; group < 16; group++) {
    factors[out / 16 + group] = d * ((bytes[at + 192 + group]! << 24) >> 24);
    const [part, quarter, within] = [group >> 3, (group >> 1) & 3, (group & 1) * 16];
    const low = at + part * 64 + (quarter & 1) * 32 + within;
    const high = at + 128 + part * 32 + within;
    for (let i = 0; i < 16; i++) {
      const four = (bytes[low + i]! >> ((quarter >> 1) * 4)) & 15;
      codes[out + group * 16 + i] = (four | (((bytes[high + i]! >> (quarter * 2)) & 3) << 4)) - 32;
    }
  }
};

const eightBits: Read = (bytes, at, { codes, factors }, out) => {
  factors[out / 32] = half(bytes, at);
  for (let i = 0; i < 32; i++) codes[out + i] = bytes[at + 2 + i]!; // as two's complement
};

const halves = { block: 32, factors: "F16", shift: null } as const;
const shifted = { block: 32, factors: "F32", shift: "biases" } as const;

export const ggmlFormats = {
  F32: { values: 1, bytes: 4 },
  F16: { values: 1, bytes: 2 },
  BF16: { values: 1, bytes: 2 },
  Q4_0: { values: 32, bytes: 18, bits: 4, ...halves, read: simple(8, 2) },
  Q5_0: { values: 32, bytes: 22, bits: 8, ...halves, read: simple(16, 6, 2) },
  Q8_0: { values: 32, bytes: 34, bits: 8, ...halves, read: eightBits },
  Q4_K: { values: 256, bytes: 144, bits: 4, ...shifted, read: nested(16) },
  Q5_K: { values: 256, bytes: 176, bits: 8, ...shifted, read: nested(48, 16) },
  Q6_K: { values: 256, bytes: 210, bits: 8, block: 16, factors: "F32", shift: null, read: sixBits },
} as const satisfies Record<string, Format | BlockFormat>;

export type GgmlFormat = keyof typeof ggmlFormats;

/** Names by the number in files; those without an entry above are only named. */
export const ggmlNames: readonly (string | undefined)[] =
  `F32 F16 Q4_0 Q4_1 Q4_2 Q4_3 Q5_0 Q5_1 Q8_0 Q8_1 Q2_K Q3_K Q4_K Q5_K Q6_K Q8_K IQ2_XXS IQ2_XS IQ3_XXS IQ1_S IQ4_NL
  IQ3_S IQ2_S IQ4_XS I8 I16 I32 I64 F64 IQ1_M BF16`.split(/\s+/);

/** How a format lies in blocks; undefined where it does not, or there is no such format. */
export function blockFormat(name: string): BlockFormat | undefined {
  const format = Object.hasOwn(ggmlFormats, name) && ggmlFormats[name as GgmlFormat];
  return format && "read" in format ? format : undefined;
}

export function blocksOf({ values, bytes, block, read }: BlockFormat, stored: Uint8Array): Blocks {
  const count = (stored.length / bytes) * values;
  const [factors, biases] = [new Float32Array(count / block), new Float32Array(count / block)];
  const blocks = { codes: new Int8Array(count), factors, biases: biases.fill(-0) };
  for (let at = 0, out = 0; at < stored.length; at += bytes, out += values)
    read(stored, at, blocks, out);
  return blocks;
}

/** Their values, rounded where C rounds them. */
export function decodeBlocks(format: BlockFormat, stored: Uint8Array): Float32Array {
  const { codes, factors, biases } = blocksOf(format, stored);
  const all = new Float32Array(codes.length);
  for (let of = 0, i = 0; of < factors.length; of++)
    for (const end = i + format.block; i < end; i++)
      all[i] = Math.fround(codes[i]! * factors[of]!) + biases[of]!;
  return all;
}
