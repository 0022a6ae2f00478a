// Text files, also behind gzip or Zstandard: plain text as a document, lines of JSON, JSON and CSV as rows. No file has to
// fit into one string.

import { pipeline } from "node:stream";
import { codeOf, messageOf, UserError } from "../../core/errors.ts";
import { isRecord, shown } from "../../core/json.ts";
import { RowProblem } from "../chat-answers.ts";
import type { Piece } from "../document.ts";
import { readBytes } from "./compressed.ts";
import type { Row } from "./rows.ts";

/** The whole file is one document. */
export async function* readPlainText(path: string): AsyncGenerator<Piece> {
  for await (const text of readCharacters(path)) yield { text, isTarget: true, isLast: false };
  yield { text: "", isTarget: true, isLast: true };
}

/** A file's text as a whole. */
export async function readWhole(path: string): Promise<string> {
  let whole = "";
  for await (const text of readCharacters(path)) whole += text;
  return whole;
}

async function* readLines(path: string): AsyncGenerator<string> {
  let rest = "";
  for await (const text of readCharacters(path)) {
    rest += text;
    if (!text.includes("\n")) continue;
    const lines = rest.split("\n");
    rest = lines.pop()!;
    yield* lines;
  }
  yield rest;
}

async function* readCharacters(path: string): AsyncGenerator<string> {
  // Fatal: replacement characters would change the tokens silently. The mark at a file's start is part of the text.
  const decoder = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });
  let offset = 0;
  try {
    for await (const bytes of readBytes(path)) {
      yield decoder.decode(bytes, { stream: true });
      offset += bytes.length;
    }
    yield decoder.decode();
  } catch (error) {
    throw readingFailure(error, path, `somewhere after byte ${offset}`);
  }
}

/** What is wrong with a file, and a hint, by the codes of errors. */
const failures: readonly (readonly [RegExp, string, string])[] = [
  [/^Z_/, "is not gzip, or not all of it", "is it complete?"],
  [/^ZSTD/, "is not Zstandard, or not all of it", "is it complete?"],
  [/^CHECKSUM/, "is damaged: its checksum is of another content", "fetch it again"],
  [/^ERR_ENCODING/, "is not UTF-8 text", "convert it, for example with iconv -t utf-8"],
  [
    /^CSV_/,
    "cannot be read as CSV or TSV",
    "is a quotation mark open, or a line of another length?",
  ],
];

function readingFailure(cause: unknown, path: string, detail: string): Error {
  const [, problem, hint] = failures.find(([code]) => code.test(codeOf(cause) ?? "")) ?? [];
  return problem
    ? new UserError(`${path} ${problem} (${detail})`, { hint, cause })
    : (cause as Error);
}

/** Blank lines are no rows. */
export async function* readJsonLines(path: string): AsyncGenerator<Row> {
  let number = 0;
  for await (const line of readLines(path)) {
    const place = `${path}:${++number}`;
    if (line.trim() !== "") yield { place, ...parseJson(line, "a line of JSON") };
  }
}

// Strings end a little later.
const maxCharacters = 500_000_000;

/** An array, or an object with one array in it; lines of JSON under this name are taken for what they are. */
export async function* readJson(path: string): AsyncGenerator<Row> {
  let text = "";
  for await (const characters of readCharacters(path)) {
    text += characters;
    if (text.length > maxCharacters)
      throw new UserError(`${path} is too large for JSON`, { hint: "write a row a line (.jsonl)" });
  }
  if (/^\s*\{.*\}\s*\n\s*\{/.test(text)) yield* readJsonLines(path);
  else {
    const { value, problem } = parseJson(text, "JSON");
    if (problem) throw new UserError(`${path}: ${problem.message}`, problem);
    for (const [i, row] of arrayIn(value, path).entries())
      yield { value: row, place: `${path}, row ${i + 1}` };
  }
}

function arrayIn(found: unknown, path: string): readonly unknown[] {
  const values = Array.isArray(found) ? [found] : Object.values(found ?? {});
  const [array, ...others] = values.filter(Array.isArray);
  const isMessage = (one: unknown) => isRecord(one) && ("role" in one || "from" in one);
  if (array?.some(isMessage)) return [found]; // a conversation, alone
  if (array && others.length === 0) return array;
  throw new UserError(`${path}: expected an array of rows, or an object with one`);
}

function parseJson(text: string, expected: string): Pick<Row, "value" | "problem"> {
  try {
    // Trimmed of the mark that may begin a file, too.
    return { value: JSON.parse(text.trim()) as unknown };
  } catch (error) {
    const [, number] = /[:,[]\s*(NaN|-?Infinity)\b/.exec(text) ?? [];
    // The engine's message quotes the text, which may be long.
    const reason = number ? `found ${number}` : messageOf(error).replace(/,? (\.\.\.)?"[^]*$/, "");
    const hint = number
      ? `Python wrote ${number}: write null there, or json.dumps(…, allow_nan=False)`
      : /^\s*[[{]\s*$/.test(text)
        ? "a row is one line here; name a file .json where its rows have several"
        : undefined;
    const problem = new RowProblem(`expected ${expected} (${reason})`, { hint });
    return { value: undefined, problem };
  }
}

/** Rows of .csv and .tsv files, by the names in their first line. */
export async function* readCsv(path: string): AsyncGenerator<Row> {
  const { parse } = await import("csv-parse");
  const delimiter = /\.tsv\b[^/]*$/i.test(path) ? "\t" : ",";
  const columns = (names: string[]) => {
    const twice = names.find((name, i) => names.indexOf(name) !== i);
    if (twice === undefined) return names;
    throw new UserError(`${path}: two columns are called ${shown(twice)}`, {
      hint: "give each column a name of its own in the first line",
    });
  };
  const parser = parse({ columns, bom: true, info: true, delimiter });
  try {
    for await (const { record, info } of pipeline(readCharacters(path), parser, () => undefined))
      yield { value: record, place: `${path}:${info.lines}` };
  } catch (error) {
    throw readingFailure(error, path, messageOf(error));
  }
}
