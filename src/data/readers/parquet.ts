// The text columns of a parquet file, one row group in memory at a time.

import { guardedReader, type TableRequest, textColumns, unreadable } from "./guarded.ts";
import type { Row } from "./text.ts";

export const readParquet = guardedReader("./parquet", "rowGroups", "parquet");

/** Runs in the guard's process. */
export async function* rowGroups(request: TableRequest): AsyncGenerator<Row[]> {
  const [path] = request;
  const hyparquet = await import("hyparquet");
  const { compressors } = await import("hyparquet-compressors");
  try {
    const file = await hyparquet.asyncBufferFromFile(path);
    const metadata = await hyparquet.parquetMetadataAsync(file);
    const columns = hyparquet.parquetSchema(metadata).children.map(({ element }) => element);
    const texts = columns.filter(({ type }) => type === "BYTE_ARRAY").map(({ name }) => name);
    const fields = [...textColumns(texts, request)];
    let rowEnd = 0;
    for (const group of metadata.row_groups) {
      const rowStart = rowEnd;
      rowEnd += Number(group.num_rows);
      const range = { file, metadata, compressors, columns: fields, rowStart, rowEnd };
      const values = rowEnd > rowStart ? await hyparquet.parquetReadObjects(range) : [];
      yield values.map((value, i) => ({ value, fields, place: `${path}, row ${rowStart + i}` }));
    }
  } catch (error) {
    throw unreadable(error, path, "parquet");
  }
}
