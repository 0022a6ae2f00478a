// Files of one JSON object per line, appended to while a run goes on; a killed writer leaves at most a torn last line.

import { appendFile } from "node:fs/promises";
import { readIfPresent, writeFailure, writeFileAtomic } from "./atomic.ts";
import { type JsonObject, parseObject } from "./json.ts";

/** Appends one record; the line is in the hands of the system, not of this process, when the promise resolves. */
export async function appendLine(path: string, record: JsonObject): Promise<void> {
  await appendFile(path, `${JSON.stringify(record)}\n`).catch((error: unknown) => {
    throw writeFailure(path, error);
  });
}

/** The records of a file, without a torn last line; none where there is no file. */
export async function readLines(path: string): Promise<JsonObject[]> {
  const lines = String((await readIfPresent(path)) ?? "").split("\n");
  lines.pop(); // empty after a whole last line, else the torn one
  return lines.map((line, i) => parseObject(line, `${path}: line ${i + 1}`, { exitCode: 1 }));
}

/** Keeps the records that `isKept` accepts, and no torn line; the file is replaced atomically. */
export async function filterLines(
  path: string,
  isKept: (record: JsonObject) => boolean,
): Promise<void> {
  const kept = (await readLines(path)).filter(isKept);
  await writeFileAtomic(path, kept.map((record) => `${JSON.stringify(record)}\n`).join(""));
}
