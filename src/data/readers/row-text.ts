// The text of one row of a data file, and what to say where it has none.

import { didYouMean, messageOf, UserError } from "../../core/errors.ts";

/** The string in `field` of a row; the error for anything else does not say where the row is (see `atRow`). */
export function rowText(row: unknown, field: string): string {
  if (typeof row !== "object" || row === null || Array.isArray(row)) {
    const found = JSON.stringify(row)?.slice(0, 40);
    throw new UserError(`expected an object with a field "${field}", found ${found}`);
  }
  const value = (row as Record<string, unknown>)[field];
  if (typeof value === "string") return value;
  if (value !== undefined) {
    const found = value === null ? "null" : typeof value;
    throw new UserError(`field "${field}" is ${found}, expected a string`);
  }
  const fields = Object.keys(row);
  throw new UserError(`no field "${field}", only ${fields.join(", ") || "none"}`, {
    hint: fieldHint(field, fields),
  });
}

export function fieldHint(field: string, known: readonly string[]): string {
  return didYouMean(field, known) ?? "name the one that holds the text";
}

/** A row's error with its place in front. */
export function atRow(place: string, error: unknown): UserError {
  const hint = error instanceof UserError ? error.hint : undefined;
  return new UserError(`${place}: ${messageOf(error)}`, { hint, cause: error });
}
