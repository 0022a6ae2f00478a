// A writer of GGUF files, for tests. The format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md

import { writeFile } from "node:fs/promises";

/** A number says its format; a string, a truth value and a list of strings have only one. */
export type Value =
  | string
  | boolean
  | readonly string[]
  | { readonly u16: number }
  | { readonly u32: number }
  | { readonly f32: number | readonly number[] }
  | { readonly i32: number | readonly number[] };

export interface GgufTensor {
  /** As PyTorch has it: GGUF lists the dimensions the other way round. */
  readonly shape: readonly number[];
  readonly data: Uint8Array;
  /** Of ggml; 0 is F32. */
  readonly type?: number;
}

export type Metadata = Readonly<Record<string, Value>>;

const ALIGNMENT = 32;
const padded = (length: number) => Math.ceil(length / ALIGNMENT) * ALIGNMENT;

export async function writeGguf(
  path: string,
  metadata: Metadata,
  tensors: ReadonlyMap<string, GgufTensor>,
): Promise<void> {
  await writeFile(path, gguf(metadata, tensors));
}

export function gguf(metadata: Metadata, tensors: ReadonlyMap<string, GgufTensor>): Buffer {
  const keys = Object.entries(metadata);
  const parts = [Buffer.from("GGUF"), u32(3), u64(tensors.size), u64(keys.length)];
  for (const [key, value] of keys) parts.push(text(key), ...encoded(value));
  let offset = 0;
  for (const [name, { shape, data, type = 0 }] of tensors) {
    parts.push(text(name), u32(shape.length), ...shape.toReversed().map(u64));
    parts.push(u32(type), u64(offset));
    offset += padded(data.length);
  }
  const header = Buffer.concat(parts);
  const contents = [...tensors.values()].flatMap(({ data }) => [
    data,
    Buffer.alloc(padded(data.length) - data.length),
  ]);
  return Buffer.concat([header, Buffer.alloc(padded(header.length) - header.length), ...contents]);
}

function encoded(value: Value): Buffer[] {
  if (typeof value === "string") return [u32(8), text(value)];
  if (typeof value === "boolean") return [u32(7), Buffer.from([Number(value)])];
  if ("u16" in value) return [u32(2), Buffer.from(Uint16Array.of(value.u16).buffer)];
  if ("u32" in value) return [u32(4), u32(value.u32)];
  if ("f32" in value) return numbers(6, Float32Array, value.f32);
  if ("i32" in value) return numbers(5, Int32Array, value.i32);
  return [u32(9), u32(8), u64(value.length), ...value.map(text)];
}

/** One number or a list of them. */
function numbers(
  type: number,
  Values: Float32ArrayConstructor | Int32ArrayConstructor,
  value: number | readonly number[],
): Buffer[] {
  const bytes = (list: readonly number[]) => Buffer.from(Values.from(list).buffer);
  return typeof value === "number"
    ? [u32(type), bytes([value])]
    : [u32(9), u32(type), u64(value.length), bytes(value)];
}

function u32(value: number): Buffer {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32LE(value);
  return bytes;
}

function u64(value: number): Buffer {
  const bytes = Buffer.alloc(8);
  bytes.writeBigUInt64LE(BigInt(value));
  return bytes;
}

const text = (value: string) => Buffer.concat([u64(Buffer.byteLength(value)), Buffer.from(value)]);
