// The text columns of a parquet file, one row group in memory at a time.

import { columnsToRead, guardedReader, unreadable } from "./guarded.ts";
import type { TableRequest, TableRows } from "./guarded.ts";

export const readParquet = guardedReader("./parquet", "rowGroups", "parquet");

/** Runs in the guard's process. Without a name, an only text column is taken whatever it is called. */
export async function* rowGroups([path, options]: TableRequest): AsyncGenerator<TableRows> {
  const hyparquet = await import("hyparquet");
  const { compressors } = await import("hyparquet-compressors");
  try {
    const file = await hyparquet.asyncBufferFromFile(path);
    const metadata = await hyparquet.parquetMetadataAsync(file);
    const all = hyparquet.parquetSchema(metadata).children;
    const namesOf = (some: typeof all) => some.map(({ element }) => element.name);
    const texts = namesOf(all.filter(({ element }) => element.type === "BYTE_ARRAY"));
    const lists = namesOf(all.filter(({ children }) => children.length > 0));
    const { textColumn, fields } = columnsToRead({ texts, lists, all: namesOf(all) }, options);
    let rowEnd = 0;
    for (const group of metadata.row_groups) {
      const rowStart = rowEnd;
      rowEnd += Number(group.num_rows);
      const range = { file, metadata, compressors, columns: fields, rowStart, rowEnd };
      const values = rowEnd > rowStart ? await hyparquet.parquetReadObjects(range) : [];
      yield values.map((value) => ({ value, textColumn }));
    }
  } catch (error) {
    throw unreadable(error, path, "parquet");
  }
}
