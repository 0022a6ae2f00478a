// Number formats of tensors on disk and in graphs, and the half-precision conversions that Node 20 lacks.

/** Sizes in bytes, by safetensors name. */
export const DTYPE_BYTES = {
  F64: 8,
  F32: 4,
  F16: 2,
  BF16: 2,
  I64: 8,
  I32: 4,
  I16: 2,
  I8: 1,
  U8: 1,
  BOOL: 1,
} as const;

export type Dtype = keyof typeof DTYPE_BYTES;

/** The number format in which a graph holds weights and activations, by the names that users give. */
export const precisions = { fp32: "F32", fp16: "F16", bf16: "BF16" } as const satisfies Record<
  string,
  Dtype
>;
export type Precision = keyof typeof precisions;

/** Formats of exports whose matrices are blocks of integers, by transformers.js's names. */
export const BLOCK_FORMATS = ["q8", "q4", "q4f16"] as const;
export type ExportFormat = Precision | (typeof BLOCK_FORMATS)[number];

/** Their other spellings, which users may write too: the short one, and PyTorch's in config.json. */
export const spellings = {
  fp32: ["f32", "float32"],
  fp16: ["f16", "float16"],
  bf16: ["bf16", "bfloat16"],
} as const satisfies Record<Precision, readonly [short: string, torch: string]>;

export function precisionNamed(word: string): Precision | undefined {
  const lower = word.toLowerCase();
  const named = (name: Precision) => [name, ...spellings[name]].some((known) => known === lower);
  return (Object.keys(precisions) as Precision[]).find(named);
}

const scratch = new Float32Array(1);
const scratchBits = new Uint32Array(scratch.buffer);

/** A number to bfloat16 bits, rounding to nearest, ties to even; NaN stays a quiet NaN. */
export function f32ToBf16(value: number): number {
  scratch[0] = value;
  const bits = scratchBits[0]!;
  if (Number.isNaN(value)) return (bits >>> 16) | 0x40;
  return ((bits + 0x7fff + ((bits >>> 16) & 1)) >>> 16) & 0xffff;
}

/** IEEE 754 half-precision bits to a number. */
export function f16ToF32(bits: number): number {
  const magnitude = bits & 0x7fff;
  if (magnitude < 0x400) return (bits & 0x8000 ? -1 : 1) * magnitude * 2 ** -24;
  // The exponent's bias grows from 15 to 127; that of infinity and NaN goes from 31 to 255.
  const rebias = magnitude < 0x7c00 ? 0x38000000 : 0x70000000;
  scratchBits[0] = ((bits & 0x8000) << 16) | ((magnitude << 13) + rebias);
  return scratch[0]!;
}

/** A number to half-precision bits, rounding to nearest, ties to even; overflow gives infinity. */
export function f32ToF16(value: number): number {
  scratch[0] = value;
  const bits = scratchBits[0]!;
  const sign = (bits >>> 16) & 0x8000;
  const magnitude = bits & 0x7fffffff;
  if (magnitude > 0x7f800000) return sign | 0x7e00; // NaN
  if (magnitude >= 0x477ff000) return sign | 0x7c00; // rounds to 65536 or more
  if (magnitude < 0x38800000) {
    // Subnormal: the value in units of 2^-24, rounded by the float addition itself.
    scratch[0] = Math.abs(value) + 0.5;
    return sign | (scratchBits[0]! - 0x3f000000);
  }
  return sign | ((magnitude - 0x38000000 + 0xfff + ((magnitude >>> 13) & 1)) >>> 13);
}

const decoders: Partial<Record<Dtype, (bytes: Uint8Array) => Float32Array>> = {
  F32: (bytes) => new Float32Array(aligned(bytes)),
  F64: (bytes) => new Float32Array(new Float64Array(aligned(bytes))),
  F16: (bytes) => {
    const halves = new Uint16Array(aligned(bytes));
    const values = new Float32Array(halves.length);
    for (let i = 0; i < halves.length; i++) values[i] = f16ToF32(halves[i]!);
    return values;
  },
  BF16: (bytes) => {
    const halves = new Uint16Array(aligned(bytes));
    const bits = new Uint32Array(halves.length);
    for (let i = 0; i < halves.length; i++) bits[i] = halves[i]! << 16; // the upper half of a float32
    return new Float32Array(bits.buffer);
  },
};

/** Little-endian bytes of a floating-point dtype as float32 values; undefined for integer dtypes. */
export const decodeFloats = (dtype: Dtype, bytes: Uint8Array) => decoders[dtype]?.(bytes);

/** float32 values as little-endian bytes of F32 (a view), F16 or BF16. */
export function encodeFloats(dtype: "F32" | "F16" | "BF16", values: Float32Array): Uint8Array {
  if (dtype === "F32") return new Uint8Array(values.buffer, values.byteOffset, values.byteLength);
  const encode = dtype === "F16" ? f32ToF16 : f32ToBf16;
  const halves = new Uint16Array(values.length);
  // A plain loop: TypedArray.from with a function takes over a hundred nanoseconds per element.
  for (let i = 0; i < halves.length; i++) halves[i] = encode(values[i]!);
  return new Uint8Array(halves.buffer);
}

/** The bytes as a buffer of their own, since views need aligned offsets, which safetensors does not promise. */
function aligned(bytes: Uint8Array): ArrayBuffer {
  const isWhole = bytes.byteLength === bytes.buffer.byteLength;
  // Not bytes.slice(): a Node Buffer's shares its memory.
  return isWhole ? (bytes.buffer as ArrayBuffer) : new Uint8Array(bytes).buffer;
}

/** The same integers in 64 bits, without a BigInt of each for the garbage collector. */
export function toInt64(values: Int32Array): BigInt64Array {
  const words = new Int32Array(2 * values.length);
  for (let i = 0; i < values.length; i++) {
    words[2 * i] = values[i]!;
    words[2 * i + 1] = values[i]! >> 31; // all sign
  }
  return new BigInt64Array(words.buffer);
}
