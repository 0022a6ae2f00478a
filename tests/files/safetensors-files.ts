// Hand-made safetensors files for tests, whole and malformed; independent of the project's writer.

import { mkdir, writeFile } from "node:fs/promises";
import { join } from "node:path";

/** The bytes of a file: header length, header (an object, or text as it is), data. */
export function fileBytes(header: unknown, data: Uint8Array = new Uint8Array()): Uint8Array {
  const json = Buffer.from(typeof header === "string" ? header : JSON.stringify(header));
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(json.length));
  return Buffer.concat([length, json, data]);
}

/** A header entry of one F32 tensor of the given shape at the given bytes. */
export function entry(shape: unknown, begin: unknown, end: unknown, dtype: unknown = "F32") {
  return { dtype, shape, data_offsets: [begin, end] };
}

/** Writes files into a folder, which is made, and returns its path. */
export async function folderOf(
  path: string,
  files: Readonly<Record<string, string | Uint8Array>>,
): Promise<string> {
  await mkdir(path, { recursive: true });
  for (const [name, content] of Object.entries(files)) await writeFile(join(path, name), content);
  return path;
}

export function float32Bytes(...values: readonly number[]): Uint8Array {
  return new Uint8Array(Float32Array.from(values).buffer);
}
