// The text columns of a parquet file, one row group in memory at a time. The parser is another's and can loop for ever
// on a damaged file, so it works where it can be ended.

import { stat } from "node:fs/promises";
import { messageOf, UserError } from "../../core/errors.ts";
import { guarded } from "../../core/worker.ts";
import { textFields, type Row } from "./rows.ts";

// A parser that gives nothing for so long, and as long again as even a slow one needs for the bytes, is stuck.
const patienceSeconds = 5;
const slowBytesPerSecond = 5_000_000;

interface RowGroup {
  readonly first: number;
  readonly rows: readonly unknown[];
  readonly fields: readonly string[];
}

export async function* readParquet(path: string, field?: string): AsyncGenerator<Row> {
  const { size } = await stat(path);
  const groups = guarded<RowGroup>("./parquet", "rowGroups", { path, field }, import.meta.url, {
    seconds: patienceSeconds + size / slowBytesPerSecond,
    task: `reading ${path} as parquet`,
  });
  for await (const { first, rows, fields } of groups)
    for (const [i, value] of rows.entries())
      yield { value, fields, place: `${path}, row ${first + i}` };
}

/** Runs in the guard's process. Without a name, an only text column is taken whatever it is called. */
export async function* rowGroups({
  path,
  field,
}: {
  readonly path: string;
  readonly field?: string;
}): AsyncGenerator<RowGroup> {
  try {
    yield* readGroups(path, field);
  } catch (error) {
    if (error instanceof UserError) throw error;
    const reason = error instanceof TypeError ? "its structure is damaged" : messageOf(error);
    throw new UserError(`${path} cannot be read as parquet: ${reason}`, {
      hint: "is it complete?",
    });
  }
}

async function* readGroups(path: string, field: string | undefined): AsyncGenerator<RowGroup> {
  const { asyncBufferFromFile, parquetMetadataAsync, parquetReadObjects, parquetSchema } =
    await import("hyparquet");
  const { compressors } = await import("hyparquet-compressors");
  const file = await asyncBufferFromFile(path);
  const metadata = await parquetMetadataAsync(file);
  const columns = parquetSchema(metadata).children.map(({ element }) => element);
  const texts = columns.filter(({ type }) => type === "BYTE_ARRAY").map(({ name }) => name);
  const fields = !field && texts.length === 1 ? texts : textFields(texts, field, path);
  let rowEnd = 0;
  for (const group of metadata.row_groups) {
    const rowStart = rowEnd;
    rowEnd += Number(group.num_rows);
    const range = { file, metadata, compressors, columns: [...fields], rowStart, rowEnd };
    if (rowEnd > rowStart) yield { first: rowStart, fields, rows: await parquetReadObjects(range) };
  }
}
