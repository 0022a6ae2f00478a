// Reads .txt, .jsonl and .parquet files as streams of texts, and shares of them.

import { createReadStream } from "node:fs";
import { open, type FileHandle } from "node:fs/promises";
import { codeOf, messageOf, UserError } from "../../core/errors.ts";
import type { DataSplit, FilePart } from "./data-files.ts";
import { readParquetTexts } from "./parquet.ts";
import { atRow, rowText } from "./row-text.ts";
import type { Piece } from "../document.ts";

const chunkBytes = 1 << 20;
const newline = 10;

/**
 * The texts of a split: each .txt file is one, each row of the others is one. `field` names the rows' text column
 * (default `text`). What is not UTF-8 or has no such field is the user's matter, named by file and line.
 */
export async function* readTexts(split: DataSplit, field = "text"): AsyncGenerator<Piece> {
  for (const part of split.parts) {
    if (split.format === "txt") yield* readPlainText(part);
    else if (split.format === "jsonl") yield* readJsonLines(part, field);
    else yield* readParquetTexts(part, field);
  }
}

async function* readPlainText(part: FilePart): AsyncGenerator<Piece> {
  // Fatal: replacement characters would change the tokens silently. The mark at a file's start is part of the text.
  const decoder = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });
  let offset = 0;
  try {
    for await (const { bytes, begin } of readBytes(part)) {
      offset = begin;
      yield { text: decoder.decode(bytes, { stream: true }), isTarget: true, isLast: false };
    }
    yield { text: decoder.decode(), isTarget: true, isLast: true };
  } catch (error) {
    if (codeOf(error) !== "ERR_ENCODING_INVALID_ENCODED_DATA") throw error;
    throw new UserError(`${part.path} is not UTF-8 text (somewhere after byte ${offset})`, {
      hint: "convert it, for example with iconv -t utf-8",
      cause: error,
    });
  }
}

async function* readJsonLines(part: FilePart, field: string): AsyncGenerator<Piece> {
  for await (const { line, offset } of readLines(part)) {
    let text: string | undefined;
    try {
      text = parseRow(line, field);
    } catch (error) {
      throw atRow(`${part.path}:${await lineNumber(part.path, offset)}`, error);
    }
    if (text !== undefined) yield { text, isTarget: true, isLast: true };
  }
}

/** The text of a line; undefined for a blank one. */
function parseRow(line: Uint8Array, field: string): string | undefined {
  const json = new TextDecoder("utf-8", { fatal: true }).decode(line);
  if (json.trim() === "") return undefined;
  let row: unknown;
  try {
    row = JSON.parse(json);
  } catch (error) {
    throw new UserError(`expected a line of JSON (${messageOf(error)})`, { cause: error });
  }
  return rowText(row, field);
}

async function* readLines(part: FilePart): AsyncGenerator<{ line: Uint8Array; offset: number }> {
  let pending: Uint8Array[] = [];
  let offset: number | undefined;
  for await (const { bytes, begin } of readBytes(part)) {
    offset ??= begin;
    let start = 0;
    for (let end = bytes.indexOf(newline); end >= 0; end = bytes.indexOf(newline, start)) {
      yield { line: Buffer.concat([...pending, bytes.subarray(start, end)]), offset };
      pending = [];
      start = end + 1;
      offset = begin + start;
    }
    pending.push(bytes.subarray(start));
  }
  yield { line: Buffer.concat(pending), offset: offset ?? 0 };
}

/** The bytes of a part of a file of lines; parts that share a bound meet right after the same line end. */
async function* readBytes(part: FilePart): AsyncGenerator<{ bytes: Uint8Array; begin: number }> {
  const [start, end] = await lineBounds(part);
  if (start >= end) return;
  let begin = start;
  const range = { start, end: end - 1, highWaterMark: chunkBytes };
  for await (const chunk of createReadStream(part.path, range)) {
    const bytes = chunk as Buffer;
    yield { bytes, begin };
    begin += bytes.length;
  }
}

async function lineBounds(part: FilePart): Promise<[number, number]> {
  const handle = await open(part.path, "r");
  try {
    const { size } = await handle.stat();
    const bound = async (share: number): Promise<number> =>
      share <= 0 ? 0 : share >= 1 ? size : await lineEndBefore(handle, Math.floor(share * size));
    return [await bound(part.begin), await bound(part.end)];
  } finally {
    await handle.close();
  }
}

/** The place after the last line end before `offset`; 0 where there is none. */
async function lineEndBefore(handle: FileHandle, offset: number): Promise<number> {
  const buffer = Buffer.alloc(1 << 16);
  for (let end = offset; end > 0;) {
    const begin = Math.max(0, end - buffer.length);
    const { bytesRead } = await handle.read(buffer, 0, end - begin, begin);
    const found = buffer.subarray(0, bytesRead).lastIndexOf(newline);
    if (found >= 0) return begin + found + 1;
    end = begin;
  }
  return 0;
}

/** Counts only when there is an error to report, so that a part of a file needs no count of what is before it. */
async function lineNumber(path: string, offset: number): Promise<number> {
  let line = 1;
  if (offset === 0) return line;
  for await (const chunk of createReadStream(path, { end: offset - 1 })) {
    for (const byte of chunk as Buffer) if (byte === newline) line++;
  }
  return line;
}
