// Matrices as blocks of integers with a factor each: llama.cpp's Q4_0 and Q8_0, with blocks of other lengths too.

import { f16ToF32, f32ToF16 } from "../core/dtype.ts";
import { invariant, UserError } from "../core/errors.ts";
import { sizeOf } from "../core/shape.ts";
import type { TensorInfo } from "../files/safetensors-header.ts";
import type { QuantizeOptions } from "../options/quantize.ts";

/** How a base is quantised. */
export interface Quantization {
  readonly bits: 4 | 8;
  /** Values of a row that have a factor in common. */
  readonly block: number;
  /** Whether the embeddings are as well: with 8 bits, since they are read by the row. */
  readonly head: boolean;
}

/** A matrix whose bytes in its file are its codes, row by row, then the factors of their blocks. */
export interface BlockedTensor extends TensorInfo {
  readonly bits: 4 | 8;
  readonly block: number;
}

export const isBlocked = (info: TensorInfo): info is BlockedTensor => "block" in info;

/** As options say it; null: not at all. */
export function quantizationOf(options: Partial<QuantizeOptions>): Quantization | null {
  const { quantize = "none", quantizeBlock: block = 32, quantizeHead: head = false } = options;
  if (quantize !== "none") return { bits: quantize === "q4" ? 4 : 8, block, head };
  if (!head) return null;
  throw new UserError("--quantize-head is of a quantised base, and this one is not", {
    hint: "name the type of its matrices too: --quantize q4 or q8",
  });
}

/** In words, as `q4, blocks of 32`. */
export const describeQuantization = ({ bits, block, head }: Quantization) =>
  `q${bits}, blocks of ${block}${head ? ", embeddings q8" : ""}`;

/** A tensor as it lies in blocks; undefined where its rows are no whole ones. */
export function blocked(
  info: TensorInfo,
  bits: 4 | 8,
  block: number,
): Omit<BlockedTensor, "file" | "offset"> | undefined {
  const { name, shape } = info;
  if (shape.length !== 2 || shape[1]! % block !== 0) return undefined;
  const byteLength = (sizeOf(shape) * bits) / 8 + (2 * sizeOf(shape)) / block;
  return { name, dtype: `Q${bits}`, shape, bits, block, byteLength };
}

/** Its two parts as tensors of their own: codes, two of 4 bits in a byte, the first in the lower half; and F16 factors. */
export function partsOf({ bits, block, shape, file, offset, byteLength }: BlockedTensor) {
  const [rows, width] = shape as readonly [number, number];
  const codesBytes = (rows * width * bits) / 8;
  const factorsBytes = byteLength - codesBytes;
  return {
    codes: {
      dtype: bits === 4 ? "U8" : "I8",
      shape: [rows, (width * bits) / 8],
      stored: { file, offset, byteLength: codesBytes },
    },
    factors: {
      dtype: "F16",
      shape: [rows, width / block],
      stored: { file, offset: offset + codesBytes, byteLength: factorsBytes },
    },
  } as const;
}

/**
 * Whole blocks of values as codes and the bits of their F16 factors. With 4 bits the value of the largest magnitude
 * becomes -8, a code that has no opposite, with 8 bits ±127; the others are rounded to the nearest code, halves up.
 */
export function toBlocks(values: Float32Array, bits: 4 | 8, block: number, name = "") {
  invariant(values.length % block === 0, `${values.length} values in blocks of ${block}`);
  const codes = new Uint8Array((values.length * bits) / 8);
  const factors = new Uint16Array(values.length / block);
  for (let i = 0; i < factors.length; i++) {
    const start = i * block;
    const end = start + block;
    let extreme = 0;
    let magnitude = 0;
    let difference = 0; // NaN of what is not finite
    for (let at = start; at < end; at++) {
      const value = values[at]!;
      const size = value < 0 ? -value : value;
      difference += value - value;
      if (size <= magnitude) continue;
      extreme = value;
      magnitude = size;
    }
    factors[i] = f32ToF16(bits === 4 ? extreme / -8 : magnitude / 127);
    const factor = f16ToF32(factors[i]!);
    if (difference !== 0 || !Number.isFinite(factor))
      throw new UserError(`tensor "${name}" holds ${extreme}, which no block can hold`, {
        hint: "are the model's weights intact?",
        exitCode: 1,
      });
    const inverse = factor === 0 ? 0 : 1 / factor;
    if (bits === 8)
      for (let at = start; at < end; at++) codes[at] = nearest(values[at]! * inverse, -127, 127);
    else
      for (let at = start; at < end; at += 2) {
        const low = nearest(values[at]! * inverse, -8, 7) & 15;
        codes[at >> 1] = low | (nearest(values[at + 1]! * inverse, -8, 7) << 4);
      }
  }
  return { codes, factors };
}

function nearest(value: number, least: number, most: number): number {
  const rounded = Math.floor(value + 0.5);
  return rounded < least ? least : rounded > most ? most : rounded;
}
