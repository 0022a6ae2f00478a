// Tables in binary formats. Their parsers are others' and can crash or loop for ever on a damaged file, so they work
// where they can be ended.

import { stat } from "node:fs/promises";
import { messageOf, UserError } from "../../core/errors.ts";
import { guarded } from "../../core/worker.ts";
import { textFields, type Row, type RowOptions } from "./text.ts";

// A parser that gives nothing for so long, and as long again as even a slow one needs for the bytes, is stuck.
const patienceSeconds = 5;
const slowBytesPerSecond = 5_000_000;

/** What a parser beside this file is called with, in the guard's process. */
export type TableRequest = readonly [path: string, textColumn: RowOptions["textColumn"]];

/** A reader by the generator `functionName` of the module `name`, which gives many rows at a time. */
export const guardedReader = (name: string, functionName: string, format: string) =>
  async function* (path: string, { textColumn }: RowOptions): AsyncGenerator<Row> {
    const { size } = await stat(path);
    const given: TableRequest = [path, textColumn];
    const limit = {
      seconds: patienceSeconds + size / slowBytesPerSecond,
      task: `reading ${path} as ${format}`,
    };
    for await (const rows of guarded<Row[]>(name, functionName, given, import.meta.url, limit))
      yield* rows;
  };

/** The columns to read among those with text. Without a name, an only one is taken whatever it is called. */
export const textColumns = (texts: readonly string[], [path, textColumn]: TableRequest) =>
  texts.length === 1 && textColumn == null ? texts : textFields(texts, textColumn, path);

/** The user's error for what a parser stumbled over. */
export function unreadable(error: unknown, path: string, format: string): UserError {
  if (error instanceof UserError) return error;
  const isStructure = error instanceof TypeError || error instanceof RangeError;
  const reason = isStructure ? "its structure is damaged" : messageOf(error);
  return new UserError(`${path} cannot be read as ${format}: ${reason}`, {
    hint: "is it complete?",
  });
}
