// The bytes of a safetensors file, whoever writes them where.

import { DTYPE_BYTES, type Dtype } from "../core/dtype.ts";
import { invariant } from "../core/errors.ts";
import { sizeOf } from "../core/shape.ts";
import { maxHeaderBytes } from "./safetensors-header.ts";

/** A tensor to be written. */
export interface TensorSource {
  readonly name: string;
  readonly dtype: Dtype;
  readonly shape: readonly number[];
  /** Little-endian values, row-major: all of them, or a function that yields them piece by piece. */
  data: Uint8Array | (() => AsyncIterable<Uint8Array>);
}

export type Metadata = Readonly<Record<string, string>> | null;

/** Large number formats first, then by name. */
export const inFileOrder = (tensors: readonly TensorSource[]) =>
  [...tensors].sort(
    (a, b) => DTYPE_BYTES[b.dtype] - DTYPE_BYTES[a.dtype] || (a.name < b.name ? -1 : 1),
  );

export function headerBytes(tensors: readonly TensorSource[], metadata: Metadata): Uint8Array {
  // Joined by hand: an object would move names that look like numbers to the front.
  const members = metadata ? [`"__metadata__":${JSON.stringify(metadata)}`] : [];
  const names = new Set(["__metadata__"]);
  let offset = 0;
  for (const tensor of tensors) {
    const { name, dtype, shape } = tensor;
    invariant(!names.has(name), `two tensors are named "${name}"`);
    names.add(name);
    const offsets = [offset, (offset += byteSize(tensor))];
    const entry = JSON.stringify({ dtype, shape, data_offsets: offsets });
    members.push(`${JSON.stringify(name)}:${entry}`);
  }
  const json = new TextEncoder().encode(`{${members.join(",")}}`);
  const length = Math.ceil(json.length / 8) * 8;
  invariant(length <= maxHeaderBytes, `a header of ${length} bytes is over the format's limit`);
  const bytes = new Uint8Array(8 + length).fill(0x20);
  new DataView(bytes.buffer).setBigUint64(0, BigInt(length), true);
  bytes.set(json, 8);
  return bytes;
}

export function byteSize({ name, dtype, shape }: TensorSource): number {
  const isShape = shape.every((dim) => Number.isSafeInteger(dim) && dim >= 0);
  invariant(isShape, `"${name}" has shape [${shape.join(", ")}]`);
  return sizeOf(shape) * DTYPE_BYTES[dtype];
}
