// Matrices as blocks of integers with a factor each, and maybe a zero point or a bias: llama.cpp's Q4_0 and Q8_0 with
// blocks of other lengths too, blocks with zero points by ONNX's rule, and what other programs' files hold.

import { DTYPE_BYTES, type Dtype, f16ToF32, f32ToF16 } from "../core/dtype.ts";
import { invariant, UserError } from "../core/errors.ts";
import type { TensorInfo } from "../files/safetensors-header.ts";
import type { Model } from "../models/index.ts";
import type { QuantizeOptions } from "../options/common.ts";

/** Whose files hold blocks, and what they are called. */
export const methods = { gptq: "GPTQ", awq: "AWQ", mlx: "MLX" } as const;
export type Method = keyof typeof methods;

/** How a base is quantised. */
export interface Quantization {
  readonly bits: 4 | 8;
  /** Values of a row that have a factor in common. */
  readonly block: number;
  /** Whether the embeddings are as well: with 8 bits, since they are read by the row. */
  readonly head: boolean;
  /** Whether each block has a zero point. */
  readonly zeroPoints?: true;
  /** By whom it was, where its own files hold blocks: there is no original then. */
  readonly method?: Method | "gguf";
  /** Of a GGUF file, ggml's names of its blocks; bits and block are those of the smallest. */
  readonly formats?: readonly string[];
}

/** A matrix whose bytes in its file are its codes, row by row, the factors of their blocks, and what else these have. */
export interface BlockedTensor extends TensorInfo {
  readonly bits: 4 | 8;
  readonly block: number;
  readonly factors: "F16" | "BF16" | "F32";
  /** A zero point is of the codes' kind, and taken from them before the factor; a bias in F32 is added after it. */
  readonly shift: "zeroPoints" | "biases" | null;
  /** What it is in a GGUF file, of which it comes. */
  readonly format?: string;
}

export const isBlocked = (info: TensorInfo): info is BlockedTensor => "block" in info;

/** As options say it; null: not at all. */
export function quantizationOf(options: Partial<QuantizeOptions>): Quantization | null {
  const { quantize = "none", quantizeBlock: block = 32, quantizeHead: head = false } = options;
  const zeroPoints = options.quantizeZeroPoints === true && { zeroPoints: true as const };
  if (quantize !== "none") return { bits: quantize === "q4" ? 4 : 8, block, head, ...zeroPoints };
  if (!head && !zeroPoints) return null;
  const flag = head ? "--quantize-head" : "--quantize-zero-points";
  throw new UserError(`${flag} is of a quantised base, and this one is not`, {
    hint: "name the type of its matrices too: --quantize q4 or q8",
  });
}

/** In words, as `q4, blocks of 32`. */
export function describeQuantization({ method, formats, ...spec }: Quantization): string {
  if (method === "gguf") return `GGUF, ${new Intl.ListFormat("en").format(formats ?? [])}`;
  const { bits, block, head, zeroPoints } = spec;
  const points = zeroPoints ? " with zero points" : "";
  const of = method ? `${methods[method]}, ` : "";
  return `${of}q${bits}, blocks of ${block}${points}${head ? ", embeddings q8" : ""}`;
}

/** The flags of a quantisation; what others have quantised is so without. */
export function flagsOf(spec?: Quantization | null): { readonly quantized?: string } {
  if (!spec || spec.method) return {};
  const points = spec.zeroPoints ? " --quantize-zero-points" : "";
  const more = `${points}${spec.head ? " --quantize-head" : ""}`;
  return { quantized: `--quantize q${spec.bits} --quantize-block ${spec.block}${more}` };
}

/** What final/ of `final: model` has in place of the blocks, of which `after` is. */
export const describeFinal = ({ method }: Quantization) =>
  `final/ has ${method ? "its blocks multiplied out" : "the original's matrices"}: it scores unlike after`;

/** A tensor as it lies in blocks; undefined where its rows are no whole ones. */
export function blocked(
  { name, shape }: Pick<TensorInfo, "name" | "shape">,
  bits: 4 | 8,
  block: number,
  shift: BlockedTensor["shift"],
  factors: BlockedTensor["factors"] = "F16",
): BlockedTensor | undefined {
  if (shape.length !== 2 || shape[1]! % block !== 0) return undefined;
  // Rows of an odd number of zero points of 4 bits would end within a byte.
  const isOdd = bits === 4 && shift === "zeroPoints" && (shape[1]! / block) % 2 === 1;
  const form = { bits, block, factors, shift: isOdd ? "biases" : shift } as const;
  const info = { name, dtype: `Q${bits}`, shape, file: "", offset: 0, byteLength: 0, ...form };
  return { ...info, byteLength: partsOf(info).reduce((sum, part) => sum + part.byteLength, 0) };
}

/** Bits of a matrix's codes as they are kept: rows of embeddings are read one by one, which those of 4 bits cannot be. */
export function keptBits(model: Model, name: string, bits: 4 | 8): 4 | 8 {
  const embeddings = [model.inputEmbedding, model.outputEmbedding];
  return embeddings.includes(model.canonicalName(name)!) ? 8 : bits;
}

/** Its parts as tensors of their own: codes, two of 4 bits in a byte, the first in the lower half; factors; the shift. */
export function partsOf({ name, bits, block, shape, factors, shift, file, offset }: BlockedTensor) {
  const [rows, width] = shape as readonly [number, number];
  const perByte = bits === 4 ? 2 : 1;
  const integers = perByte === 2 ? "U8" : "I8";
  let at = offset;
  const part = (of: string, dtype: Dtype, columns: number) => {
    const byteLength = rows * columns * DTYPE_BYTES[dtype];
    at += byteLength;
    const place = { file, offset: at - byteLength, byteLength };
    return { name: `${name}.${of}`, dtype, shape: [rows, columns], ...place };
  };
  const blocks = width / block;
  const parts = [part("codes", integers, width / perByte), part("factors", factors, blocks)];
  if (shift === "zeroPoints") parts.push(part(shift, integers, blocks / perByte));
  if (shift === "biases") parts.push(part(shift, "F32", blocks));
  return parts;
}

/** The bytes of parts that come piece by piece together: all codes, then all factors, then what else there is. */
export async function* inParts(pieces: AsyncIterable<readonly Uint8Array[]>) {
  const rest: Uint8Array[][] = [];
  for await (const [codes, ...others] of pieces) {
    yield codes!;
    for (const [i, other] of others.entries()) (rest[i] ??= []).push(other);
  }
  for (const part of rest) yield* part;
}

/** Signed integers as codes are stored. */
export function packed(integers: Int8Array, bits: 4 | 8): Uint8Array {
  if (bits === 8) return new Uint8Array(integers.buffer);
  const bytes = new Uint8Array(integers.length / 2);
  for (let i = 0; i < bytes.length; i++)
    bytes[i] = (integers[2 * i]! & 15) | (integers[2 * i + 1]! << 4);
  return bytes;
}

/** And back. */
export function unpacked(bytes: Uint8Array, bits: 4 | 8): Int8Array {
  if (bits === 8) return new Int8Array(bytes.buffer, bytes.byteOffset, bytes.length);
  const integers = new Int8Array(2 * bytes.length);
  for (let i = 0; i < integers.length; i++)
    integers[i] = (bytes[i >> 1]! << (i % 2 === 0 ? 28 : 24)) >> 28;
  return integers;
}

/** The bytes of blocks' zero points in the form that the tensor has; a bias is exact, a product of few bits. */
export function shiftBytes(
  { bits, shift }: BlockedTensor,
  zeros: Int8Array,
  factors: Float32Array,
) {
  if (shift === "zeroPoints") return packed(zeros, bits);
  return new Uint8Array(factors.map((factor, i) => -factor * zeros[i]!).buffer);
}

/**
 * Whole blocks of values as codes and the bits of their F16 factors. With 4 bits the value of the largest magnitude
 * becomes -8, a code that has no opposite, with 8 bits ±127; the others are rounded to the nearest code, halves up.
 * With zero points the codes are spread from the least to the largest value, zero always among them.
 */
export function toBlocks(
  values: Float32Array,
  bits: 4 | 8,
  block: number,
  name = "",
  hasZeros = false,
) {
  invariant(values.length % block === 0, `${values.length} values in blocks of ${block}`);
  const codes = new Int8Array(values.length);
  const factors = new Uint16Array(values.length / block);
  const zeros = new Int8Array(factors.length);
  const [least, most] = bits === 4 ? [-8, 7] : [hasZeros ? -128 : -127, 127];
  for (let i = 0; i < factors.length; i++) {
    const start = i * block;
    const end = start + block;
    let [low, high] = [0, 0]; // NaN where a value is
    for (let at = start; at < end; at++) {
      // Without branches: which way they go nothing can predict.
      low = Math.min(low, values[at]!);
      high = Math.max(high, values[at]!);
    }
    const larger = -low > high ? low : high;
    // The first of the largest magnitude.
    const extreme = -low === high ? firstOf(values, start, high) : larger;
    const step = bits === 4 ? extreme / -8 : Math.abs(extreme) / 127;
    factors[i] = f32ToF16(hasZeros ? (high - low) / (most - least) : step);
    const factor = f16ToF32(factors[i]!);
    if (!Number.isFinite(factor))
      throw new UserError(`tensor "${name}" holds ${extreme}, which no block can hold`, {
        hint: "are the model's weights intact?",
        exitCode: 1,
      });
    const inverse = factor === 0 ? 0 : 1 / factor;
    const zero = hasZeros ? least + nearest(-low * inverse, 0, most - least) : 0;
    zeros[i] = zero;
    for (let at = start; at < end; at++)
      codes[at] = nearest(values[at]! * inverse, least - zero, most - zero) + zero;
  }
  return { codes: packed(codes, bits), factors, zeros };
}

/** The first value of this magnitude from a place on. */
function firstOf(values: Float32Array, start: number, magnitude: number): number {
  let at = start;
  while (Math.abs(values[at]!) !== magnitude) at++;
  return values[at]! || 0; // and no -0
}

function nearest(value: number, least: number, most: number): number {
  const rounded = Math.floor(value + 0.5);
  return rounded < least ? least : rounded > most ? most : rounded;
}
