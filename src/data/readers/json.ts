// Rows as JSON: a line each, or one array of them.

import { messageOf, UserError } from "../../core/errors.ts";
import type { Row } from "./rows.ts";
import { readCharacters, readLines } from "./text.ts";

/** Blank lines are no rows. */
export async function* readJsonLines(path: string): AsyncGenerator<Row> {
  let number = 0;
  for await (const line of readLines(path)) {
    const place = `${path}:${++number}`;
    if (line.trim() !== "") yield { value: parseJson(line, place, "a line of JSON"), place };
  }
}

/** An array, or an object with one array in it; lines of JSON under this name are taken for what they are. */
export async function* readJson(path: string): AsyncGenerator<Row> {
  let text = "";
  for await (const characters of readCharacters(path)) {
    if (text.length + characters.length > maxCharacters)
      throw new UserError(`${path} is too large for one JSON document`, {
        hint: "write a row a line (.jsonl)",
      });
    text += characters;
  }
  if (/^\s*\{.*\}\s*\n\s*\{/.test(text)) yield* readJsonLines(path);
  else
    for (const [i, value] of rowsOf(parseJson(text, path, "JSON"), path).entries())
      yield { value, place: `${path}, row ${i}` };
}

function rowsOf(found: unknown, path: string): unknown[] {
  const [rows, ...others] = (Array.isArray(found) ? [found] : Object.values(found ?? {})).filter(
    Array.isArray,
  );
  if (rows && others.length === 0) return rows;
  throw new UserError(`${path}: expected an array of rows, or an object with one`);
}

// Strings end a little later.
const maxCharacters = 500_000_000;

function parseJson(text: string, place: string, expected: string): unknown {
  try {
    // Trimmed of the mark that may begin a file, too.
    return JSON.parse(text.trim());
  } catch (error) {
    const [, number] = /[:,[]\s*(NaN|-?Infinity)\b/.exec(text) ?? [];
    // The engine's message quotes the text, which may be long.
    const reason = number ? `found ${number}` : messageOf(error).replace(/,? (\.\.\.)?"[^]*$/, "");
    throw new UserError(`${place}: expected ${expected} (${reason})`, {
      hint: number && `Python wrote ${number}: write null there, or json.dumps(…, allow_nan=False)`,
      cause: error,
    });
  }
}
