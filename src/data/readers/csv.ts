// Rows of .csv and .tsv files, by the names in their first line.

import { pipeline } from "node:stream";
import { codeOf, messageOf, UserError } from "../../core/errors.ts";
import type { Row } from "./rows.ts";
import { readCharacters } from "./text.ts";

export async function* readCsv(path: string): AsyncGenerator<Row> {
  const { parse } = await import("csv-parse");
  const delimiter = /\.tsv\b[^/]*$/i.test(path) ? "\t" : ",";
  const parser = parse({ columns: true, bom: true, info: true, delimiter });
  try {
    for await (const { record, info } of pipeline(readCharacters(path), parser, () => undefined))
      yield { value: record, place: `${path}:${info.lines}` };
  } catch (error) {
    if (!codeOf(error)?.startsWith("CSV_")) throw error;
    throw new UserError(
      `${path} cannot be read as ${delimiter === "," ? "CSV" : "TSV"}: ${messageOf(error)}`,
      {
        hint: "is a quotation mark not closed, or a line of another length?",
        cause: error,
      },
    );
  }
}
