// The text columns of a parquet file, one row group in memory at a time. The parser is another's and can loop for ever
// on a damaged file, so it works where it can be ended.

import { stat } from "node:fs/promises";
import { messageOf, UserError } from "../../core/errors.ts";
import { guarded } from "../../core/worker.ts";
import { RowProblem } from "../chat-answers.ts";
import { type ColumnOptions, isMessages, recognised, type Row, type RowOptions } from "./rows.ts";

// A parser that gives nothing for so long, and as long again as even a slow one needs for the bytes, is stuck.
const patienceSeconds = 5;
const slowBytesPerSecond = 5_000_000;

export async function* readParquet(path: string, options: RowOptions): AsyncGenerator<Row> {
  const { size } = await stat(path);
  const { format, textColumn, columns } = options;
  const given: Parameters<typeof rowGroups>[0] = [path, { format, textColumn, columns }];
  const limit = {
    seconds: patienceSeconds + size / slowBytesPerSecond,
    task: `reading ${path} as parquet`,
  };
  for await (const rows of guarded<Row[]>("./parquet", "rowGroups", given, import.meta.url, limit))
    yield* rows;
}

/** Runs in the guard's process. Without a name, an only text column is taken whatever it is called. */
export async function* rowGroups([path, options]: readonly [string, ColumnOptions]): AsyncGenerator<
  Row[]
> {
  const hyparquet = await import("hyparquet");
  const { compressors } = await import("hyparquet-compressors");
  try {
    const file = await hyparquet.asyncBufferFromFile(path);
    const metadata = await hyparquet.parquetMetadataAsync(file);
    const columns = hyparquet.parquetSchema(metadata).children;
    const namesOf = (all: typeof columns) => all.map(({ element }) => element.name);
    const texts = namesOf(columns.filter(({ element }) => element.type === "BYTE_ARRAY"));
    const lists = namesOf(columns.filter(({ children }) => children.length > 0));
    const isOnly = texts.length + lists.length === 1 && !isMessages(texts[0]);
    const textColumn = options.textColumn ?? (isOnly ? texts[0] : undefined);
    const found = recognised([...texts, ...lists], { ...options, textColumn }).columns;
    const fields = found.map(([, column]) => column);
    let rowEnd = 0;
    for (const group of metadata.row_groups) {
      const rowStart = rowEnd;
      rowEnd += Number(group.num_rows);
      const range = { file, metadata, compressors, columns: fields, rowStart, rowEnd };
      const values = rowEnd > rowStart ? await hyparquet.parquetReadObjects(range) : [];
      yield values.map((value, i) => ({
        value,
        textColumn,
        place: `${path}, row ${rowStart + i}`,
      }));
    }
  } catch (error) {
    if (error instanceof UserError) throw error;
    if (error instanceof RowProblem) throw new UserError(`${path}: ${error.message}`, error);
    const reason = error instanceof TypeError ? "its structure is damaged" : messageOf(error);
    throw new UserError(`${path} cannot be read as parquet: ${reason}`, {
      hint: "is it complete?",
    });
  }
}
