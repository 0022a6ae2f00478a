// The text columns of Arrow's files: streams and files (.arrow), as `datasets` keeps its data, and Feather of version 2,
// which is the same; one batch of rows in memory at a time.

import { open } from "node:fs/promises";
import { UserError } from "../../core/errors.ts";
import { readUpTo } from "../../files/safetensors.ts";
import { columnsToRead, guardedReader, unreadable } from "./guarded.ts";
import type { TableRequest, TableRows } from "./guarded.ts";
import { decompressLz4 } from "./lz4.ts";

export const readArrow = guardedReader("./arrow", "recordBatches", "Arrow");

/** Runs in the guard's process. */
export async function* recordBatches([path, options]: TableRequest): AsyncGenerator<TableRows> {
  const arrow = await import("apache-arrow");
  const { decompress } = await import("fzstd");
  const { compressionRegistry, CompressionType, DataType } = arrow;
  // A copy: numbers are read where they lie, which has to be aligned.
  compressionRegistry.set(CompressionType.ZSTD, { decode: (bytes) => decompress(bytes).slice() });
  compressionRegistry.set(CompressionType.LZ4_FRAME, { decode: decompressLz4 });
  const handle = await open(path);
  try {
    const { size } = await handle.stat();
    const hexAt = async (at: number) =>
      Buffer.from(await readUpTo(handle, Math.max(0, at), 8)).toString("hex");
    const start = await hexAt(0);
    if (start.startsWith("46454131"))
      // FEA1
      throw new UserError(`${path} is Feather of version 1, which is not read`, {
        hint: "write it anew: pyarrow.feather.write_feather writes version 2",
      });
    if (isBigEndian(await readUpTo(handle, 0, Math.min(size, mostSchemaBytes))))
      throw new UserError(`${path} was written on a big-endian machine, which is not read`, {
        hint: "read it with pyarrow on this machine and write it anew",
      });
    const reader = await arrow.RecordBatchReader.from(handle);
    await reader.open();
    // A stream that was cut between two batches looks like a shorter one, but for the mark at its end; early ones lack it.
    if (start.startsWith("ffffffff") && (await hexAt(size - 8)) !== "ffffffff00000000")
      throw new Error("it has no end");
    const isText = (type: unknown): boolean =>
      DataType.isUtf8(type) ||
      DataType.isLargeUtf8(type) ||
      DataType.isUtf8View(type) ||
      (DataType.isDictionary(type) && isText(type.dictionary));
    const namesOf = (isOf: (type: unknown) => boolean) =>
      reader.schema.fields.filter(({ type }) => isOf(type)).map(({ name }) => name);
    const isList = (type: unknown) => DataType.isList(type) || DataType.isLargeList(type);
    const columns = { texts: namesOf(isText), lists: namesOf(isList), all: namesOf(() => true) };
    const { textColumn, fields } = columnsToRead(columns, options);
    for await (const batch of reader) {
      const values = fields.map((name) => batch.getChild(name)!);
      const valueAt = (i: number) =>
        Object.fromEntries(fields.map((name, at) => [name, plain(values[at]!.get(i))]));
      yield Array.from({ length: batch.numRows }, (_, i) => ({ value: valueAt(i), textColumn }));
    }
  } catch (error) {
    throw unreadable(error, path, "Arrow");
  } finally {
    await handle.close().catch(() => undefined);
  }
}

const mostSchemaBytes = 2 ** 20;

/** What the schema, the first message, says of its machine (Message.fbs, Schema.fbs): apache-arrow passes it over. */
function isBigEndian(bytes: Uint8Array): boolean {
  const view = new DataView(bytes.buffer);
  if (bytes.length < 16) return false;
  const start = view.getUint32(0, true) === 0x4f525241 ? 8 : 0; // a file's "ARRO"
  // A length, since version 0.15 behind a mark.
  const message = start + (view.getInt32(start, true) === -1 ? 8 : 4);
  const followed = (at: number) => at + view.getUint32(at, true);
  /** Where a table's field is; 0 where it has its default. */
  const field = (table: number, number: number) => {
    const fields = table - view.getInt32(table, true);
    const [size, slot] = [view.getUint16(fields, true), 4 + 2 * number];
    const offset = slot < size ? view.getUint16(fields + slot, true) : 0;
    return offset && table + offset;
  };
  const header = field(followed(message), 2);
  const endianness = header && field(followed(header), 0);
  return endianness > 0 && view.getInt16(endianness, true) === 1;
}

/** Lists and structures as JSON has them, which is how they leave the process. */
function plain(value: unknown): unknown {
  if (typeof value !== "object" || value === null) return value;
  const isLarge = (_: string, inner: unknown) =>
    typeof inner === "bigint" ? Number(inner) : inner;
  return JSON.parse(JSON.stringify(value, isLarge));
}
