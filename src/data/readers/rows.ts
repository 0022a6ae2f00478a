// Rows of data files: which of their fields hold the text, and what to say where they have none.

import { didYouMean, UserError } from "../../core/errors.ts";
import type { Document } from "../document.ts";

export interface Row {
  readonly value: unknown;
  /** Where it is, for messages: file and line or row. */
  readonly place: string;
  /** What holds the text, where the reader chose it. */
  readonly fields?: readonly string[];
}

/** What is seen and what is learnt, where a row has no text of another name. */
const promptFields = ["prompt", "completion"];

/** The fields that hold the text: the named one; without a name `text`, or a prompt and its completion. */
export function textFields(
  known: readonly string[],
  named: string | undefined,
  place: string,
): readonly string[] {
  const field = named ?? "text";
  if (known.includes(field)) return [field];
  if (!named && promptFields.every((name) => known.includes(name))) return promptFields;
  throw new UserError(`${place}: no field "${field}", only ${known.join(", ") || "none"}`, {
    hint: didYouMean(field, known) ?? "name the one that holds the text",
  });
}

/** A prompt's segment is no target. */
export function rowDocument({ value, place, fields }: Row, named: string | undefined): Document {
  if (typeof value !== "object" || value === null || Array.isArray(value)) {
    const found = JSON.stringify(value)?.slice(0, 40);
    throw new UserError(
      `${place}: expected an object with a field "${named ?? "text"}", found ${found}`,
    );
  }
  const row = value as Record<string, unknown>;
  return (fields ?? textFields(Object.keys(row), named, place)).map((field, i, all) => {
    const text = row[field];
    if (typeof text === "string") return { text, isTarget: i === all.length - 1 };
    const found = text == null ? "null" : typeof text;
    throw new UserError(`${place}: field "${field}" is ${found}, expected a string`, {
      hint: text == null ? "leave the row out, or give it an empty text" : undefined,
    });
  });
}
