// A checkpoint's weights in another number format, converted piece by piece: any size passes through little memory.

import { decodeFloats, DTYPE_BYTES, type Dtype, encodeFloats } from "../core/dtype.ts";
import { invariant, UserError } from "../core/errors.ts";
import { sizeOf } from "../core/shape.ts";
import { readBytes, readFloats, streamBytes, type TensorInfo } from "../files/safetensors.ts";
import { type BlockedTensor, isBlocked, partsOf, unpacked } from "./blocks.ts";
import { weightDtype } from "./graph.ts";

/** Bytes of a source that are read at a time; a multiple of every element's size. */
const CHUNK_BYTES = 16 * 2 ** 20;

/** In which format `pieces` has its values: as they are stored, but for blocks, multiplied out. */
const pieceDtype = (info: TensorInfo) => (isBlocked(info) ? "F32" : weightDtype(info));

/** Values of a piece. */
const pieceSize = (info: TensorInfo) =>
  isBlocked(info) ? info.block * 2 ** 14 : CHUNK_BYTES / DTYPE_BYTES[weightDtype(info)];

const pieces = (info: TensorInfo) =>
  isBlocked(info) ? multipliedOut(info) : streamBytes(info, CHUNK_BYTES);

async function* multipliedOut(info: BlockedTensor): AsyncGenerator<Uint8Array> {
  const { bits, block, shift } = info;
  const [codes, ofFactors, ofShifts] = partsOf(info);
  const factors = await readFloats(ofFactors!);
  const zeros = shift === "zeroPoints" ? unpacked(await readBytes(ofShifts!), bits) : [];
  const biases = shift === "biases" ? await readFloats(ofShifts!) : [];
  let at = 0; // of a block
  for await (const bytes of streamBytes(codes!, (pieceSize(info) * bits) / 8)) {
    const integers = unpacked(bytes, bits);
    const values = new Float32Array(integers.length);
    for (let i = 0; i < values.length; i++) {
      const scaled = (integers[i]! - (zeros[at] ?? 0)) * factors[at]!;
      values[i] = Math.fround(scaled) + (biases[at] ?? 0);
      if ((i + 1) % block === 0) at++;
    }
    yield encodeFloats("F32", values);
  }
}

/** A weight's little-endian bytes in the given format; as they are where it is stored so. */
export async function* streamAs(info: TensorInfo, dtype: Dtype): AsyncGenerator<Uint8Array> {
  for await (const piece of pieces(info)) yield converted(info, piece, dtype);
}

/** All of a weight's values at once. */
export async function floatsOf(info: TensorInfo): Promise<Float32Array> {
  const bytes = new Uint8Array(byteLengthAs(info, "F32"));
  let at = 0;
  for await (const piece of streamAs(info, "F32")) {
    bytes.set(piece, at);
    at += piece.length;
  }
  return new Float32Array(bytes.buffer);
}

export const byteLengthAs = ({ shape }: TensorInfo, dtype: Dtype): number =>
  sizeOf(shape) * DTYPE_BYTES[dtype];

/** What rounding has done to a model's weights, or to its logits. */
export type Deviation = ReturnType<DeviationMeter["result"]>;

/** Collects the differences of a copy from its original. */
export class DeviationMeter {
  numValues = 0;
  /** The largest |copy - original|, and |original|. */
  largest = 0;
  scale = 0;
  #squares = 0;
  #originalSquares = 0;

  add(original: Float32Array, copy: Float32Array): void {
    invariant(original.length === copy.length, `${copy.length} values of ${original.length}`);
    this.numValues += original.length;
    for (let i = 0; i < original.length; i++) {
      const value = original[i]!;
      const difference = Math.abs(copy[i]! - value);
      if (difference > this.largest || Number.isNaN(difference)) this.largest = difference; // NaN stays
      this.#squares += difference * difference;
      this.#originalSquares += value * value;
      this.scale = Math.max(this.scale, Math.abs(value));
    }
  }

  /** relative: root of the summed squares of the differences over that of the originals that may differ. */
  result() {
    const relative = this.#squares === 0 ? 0 : Math.sqrt(this.#squares / this.#originalSquares);
    return { numValues: this.numValues, largest: this.largest, relative };
  }
}

/** Compares a written weight with its source, byte for byte after the conversion; false where they differ. */
export async function sameWeight(source: TensorInfo, written: TensorInfo, meter: DeviationMeter) {
  const [from, to] = [pieceDtype(source), weightDtype(written)];
  const copies = streamBytes(written, pieceSize(source) * DTYPE_BYTES[to]);
  for await (const chunk of pieces(source)) {
    const { value: copy } = (await copies.next()) as { value?: Uint8Array };
    if (!copy || Buffer.compare(converted(source, chunk, to), copy) !== 0) return false;
    if (from === to) meter.numValues += chunk.length / DTYPE_BYTES[from];
    else meter.add(decodeFloats(from, chunk)!, decodeFloats(to, copy)!);
  }
  return (await copies.next()).done === true;
}

function converted(info: TensorInfo, chunk: Uint8Array, dtype: Dtype): Uint8Array {
  const from = pieceDtype(info);
  if (from === dtype) return chunk;
  invariant(dtype === "F32" || dtype === "F16" || dtype === "BF16", `conversion to ${dtype}`);
  const values = decodeFloats(from, chunk)!;
  if (dtype === "F16") refuseOverflow(info, values);
  return encodeFloats(dtype, values);
}

/** From 65520 on, numbers round to the infinity of half precision. */
function refuseOverflow({ name }: TensorInfo, values: Float32Array): void {
  const index = values.findIndex((value) => Math.abs(value) >= 65520 && Number.isFinite(value));
  if (index < 0) return;
  throw new UserError(`tensor "${name}" holds ${values[index]!}, f16 ends at 65504`, {
    hint: "export it as f32, or as bf16 where the target has it",
    exitCode: 1,
  });
}
