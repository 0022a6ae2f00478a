// Which of a row's fields hold its text, and the document that they make.

import { didYouMean, UserError } from "../../core/errors.ts";
import { isRecord } from "../../core/json.ts";
import type { Piece } from "../document.ts";

export interface Row {
  readonly value: unknown;
  /** Where it is, for messages: file and line or row. */
  readonly place: string;
  /** What holds the text, where the reader chose it. */
  readonly fields?: readonly string[];
}

export interface RowOptions {
  /** The field that holds the text; without a name `text`, or a prompt and its completion. */
  readonly textColumn?: string | null | undefined;
  /** What becomes of rows whose text is null: refused by default. */
  readonly nullRows?: "error" | "skip" | undefined;
}

/** What is seen and what is learnt, where a row has no text of another name. */
const promptFields = ["prompt", "completion"];

/** The fields that hold the text. */
export function textFields(
  known: readonly string[],
  textColumn: RowOptions["textColumn"],
  place: string,
): readonly string[] {
  const field = textColumn ?? "text";
  if (known.includes(field)) return [field];
  if (textColumn == null && promptFields.every((name) => known.includes(name))) return promptFields;
  throw new UserError(`${place}: no field "${field}", only ${known.join(", ") || "none"}`, {
    hint: didYouMean(field, known) ?? "name the one that holds the text",
  });
}

/** Makes a document of each row that a reader gives. */
export const rows = (read: (path: string, options: RowOptions) => AsyncIterable<Row>) =>
  async function* (path: string, options: RowOptions) {
    for await (const row of read(path, options)) yield* rowPieces(row, options);
  };

/** A prompt's piece is no target. */
function rowPieces(
  { value, place, fields }: Row,
  { textColumn, nullRows }: RowOptions,
): readonly Piece[] {
  if (!isRecord(value))
    throw new UserError(
      `${place}: expected an object, found ${JSON.stringify(value).slice(0, 40)}`,
    );
  const names = fields ?? textFields(Object.keys(value), textColumn, place);
  if (nullRows === "skip" && names.some((name) => value[name] == null))
    return [{ text: "", isTarget: false, isLast: true, isNull: true }];
  return names.map((name, i) => {
    const text = value[name];
    const isLast = i === names.length - 1;
    if (typeof text === "string") return { text, isTarget: isLast, isLast };
    const found = text == null ? "null" : typeof text;
    throw new UserError(`${place}: field "${name}" is ${found}, expected a string`, {
      hint: text == null ? "--null-rows skip leaves such rows out" : undefined,
    });
  });
}
