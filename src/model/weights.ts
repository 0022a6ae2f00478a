// A checkpoint's weights in another number format, converted piece by piece: any size passes through little memory.

import { decodeFloats, DTYPE_BYTES, type Dtype, encodeFloats } from "../core/dtype.ts";
import { invariant, UserError } from "../core/errors.ts";
import { streamBytes, type TensorInfo } from "../files/safetensors.ts";
import { weightDtype } from "./graph.ts";

/** Bytes of a source that are read at a time; a multiple of every element's size. */
const CHUNK_BYTES = 16 * 2 ** 20;

/** A weight's little-endian bytes in the given format; as they are where it is stored so. */
export async function* streamAs(info: TensorInfo, dtype: Dtype): AsyncGenerator<Uint8Array> {
  for await (const chunk of streamBytes(info, CHUNK_BYTES)) yield converted(info, chunk, dtype);
}

export const byteLengthAs = (info: TensorInfo, dtype: Dtype): number =>
  (info.byteLength / DTYPE_BYTES[weightDtype(info)]) * DTYPE_BYTES[dtype];

/** What rounding has done to a model's weights, or to its logits. */
export type Deviation = ReturnType<DeviationMeter["result"]>;

/** Collects the differences of a copy from its original. */
export class DeviationMeter {
  /** Values compared. */
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
  const [from, to] = [weightDtype(source), weightDtype(written)];
  const copies = streamBytes(written, (CHUNK_BYTES / DTYPE_BYTES[from]) * DTYPE_BYTES[to]);
  for await (const chunk of streamBytes(source, CHUNK_BYTES)) {
    const { value: copy } = (await copies.next()) as { value?: Uint8Array };
    if (!copy || Buffer.compare(converted(source, chunk, to), copy) !== 0) return false;
    if (from === to) meter.numValues += chunk.length / DTYPE_BYTES[from];
    else meter.add(decodeFloats(from, chunk)!, decodeFloats(to, copy)!);
  }
  return (await copies.next()).done === true;
}

function converted(info: TensorInfo, chunk: Uint8Array, dtype: Dtype): Uint8Array {
  const from = weightDtype(info);
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
