// The text column of a parquet file, one row group in memory at a time.

import {
  asyncBufferFromFile,
  parquetMetadataAsync,
  parquetReadObjects,
  parquetSchema,
  type FileMetaData,
} from "hyparquet";
import { messageOf, UserError } from "../../core/errors.ts";
import type { FilePart } from "./data-files.ts";
import { atRow, fieldHint, rowText } from "./row-text.ts";
import type { Piece } from "../document.ts";

/** Each row is a text. `field` names the column; the only text column is taken whatever its name. */
export async function* readParquetTexts(part: FilePart, field: string): AsyncGenerator<Piece> {
  const file = await asyncBufferFromFile(part.path);
  const unreadable = (error: unknown): never => {
    throw new UserError(`${part.path} cannot be read as parquet: ${messageOf(error)}`, {
      hint: "is it complete, and compressed with snappy or not at all?",
      cause: error,
    });
  };
  const metadata = await parquetMetadataAsync(file).catch(unreadable);
  const column = textColumn(metadata, part.path, field);
  const numRows = Number(metadata.num_rows);
  const begin = Math.floor(part.begin * numRows);
  const end = Math.floor(part.end * numRows);
  let groupStart = 0;
  for (const group of metadata.row_groups) {
    const groupEnd = groupStart + Number(group.num_rows);
    const rowStart = Math.max(begin, groupStart);
    const rowEnd = Math.min(end, groupEnd);
    groupStart = groupEnd;
    if (rowStart >= rowEnd) continue;
    const range = { file, metadata, columns: [column], rowStart, rowEnd };
    const rows = await parquetReadObjects(range).catch(unreadable);
    for (const [index, row] of rows.entries()) {
      let text: string;
      try {
        text = rowText(row, column);
      } catch (error) {
        throw atRow(`${part.path}, row ${rowStart + index}`, error);
      }
      yield { text, isTarget: true, isLast: true };
    }
  }
}

function textColumn(metadata: FileMetaData, path: string, field: string): string {
  const columns = parquetSchema(metadata).children.map(({ element }) => element);
  const texts = columns.filter(({ type }) => type === "BYTE_ARRAY").map(({ name }) => name);
  if (texts.includes(field)) return field;
  if (texts.length === 1) return texts[0]!;
  throw new UserError(`${path} has no text column "${field}", only ${texts.join(", ") || "none"}`, {
    hint: fieldHint(field, texts),
  });
}
