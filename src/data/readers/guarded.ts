// Tables in binary formats. Their parsers are others' and can crash or loop for ever on a damaged file, so they work
// where they can be ended.

import { stat } from "node:fs/promises";
import { messageOf, UserError } from "../../core/errors.ts";
import { guarded } from "../../core/worker.ts";
import { RowProblem } from "../chat-answers.ts";
import { type ColumnOptions, isMessages, recognised, type Row, type RowOptions } from "./rows.ts";

// A parser that gives nothing for so long, and as long again as even a slow one needs for the bytes, is stuck.
const patienceSeconds = 5;
const slowBytesPerSecond = 5_000_000;

/** What a parser beside this file is called with, in the guard's process. */
export type TableRequest = readonly [path: string, options: ColumnOptions];

/** What it gives at a time; the reader says where each row is. */
export type TableRows = Omit<Row, "place">[];

/** A reader by the generator `functionName` of the module `name`, which gives many rows at a time. */
export const guardedReader = (name: string, functionName: string, format: string) =>
  async function* (
    path: string,
    { format: kind, textColumn, columns, make }: RowOptions,
  ): AsyncGenerator<Row> {
    const { size } = await stat(path);
    const given: TableRequest = [path, { format: kind, textColumn, columns, needs: make?.needs }];
    const limit = {
      seconds: patienceSeconds + size / slowBytesPerSecond,
      task: `reading ${path} as ${format}`,
    };
    let number = 0;
    for await (const rows of guarded<TableRows>(name, functionName, given, import.meta.url, limit))
      for (const row of rows) yield { ...row, place: `${path}, row ${number++}` };
  };

type Columns = Readonly<Record<"texts" | "lists" | "all", readonly string[]>>;

/** The columns to read among all, of which some are of text and some of lists. Without a name, an only one of text is taken whatever it is called. */
export function columnsToRead(columns: Columns, { needs, ...options }: ColumnOptions) {
  const { texts, lists, all } = columns;
  if (needs) return { textColumn: undefined, fields: all.filter((name) => needs.includes(name)) };
  const isOnly = texts.length + lists.length === 1 && !isMessages(texts[0]);
  const textColumn = options.textColumn ?? (isOnly ? texts[0] : undefined);
  const found = recognised([...texts, ...lists], { ...options, textColumn }).columns;
  return { textColumn, fields: found.map(([, column]) => column) };
}

/** The user's error for what a parser stumbled over. */
export function unreadable(error: unknown, path: string, format: string): UserError {
  if (error instanceof RowProblem) return new UserError(`${path}: ${error.message}`, error);
  if (error instanceof UserError) return error;
  const isStructure = error instanceof TypeError || error instanceof RangeError;
  const reason = isStructure ? "its structure is damaged" : messageOf(error);
  return new UserError(`${path} cannot be read as ${format}: ${reason}`, {
    hint: "is it complete?",
  });
}
