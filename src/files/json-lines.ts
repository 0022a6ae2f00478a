// Files of one JSON object per line, appended to while a run goes on; a killed writer leaves at most a torn last line.

import { appendFile } from "node:fs/promises";
import { UserError } from "../core/errors.ts";
import { readIfPresent, writeFailure, writeFileAtomic } from "./atomic.ts";

/** Appends one record; the line is in the hands of the system, not of this process, when the promise resolves. */
export async function appendLine(
  path: string,
  record: Readonly<Record<string, unknown>>,
): Promise<void> {
  await appendFile(path, `${JSON.stringify(record)}\n`).catch((error: unknown) => {
    throw writeFailure(path, error);
  });
}

/** The records of a file, without a torn last line; none where there is no file. */
export async function readLines(path: string): Promise<Record<string, unknown>[]> {
  const lines = String((await readIfPresent(path)) ?? "").split("\n");
  lines.pop(); // empty after a whole last line, else the torn one
  return lines.map((line, i) => {
    try {
      return JSON.parse(line) as Record<string, unknown>;
    } catch (error) {
      throw new UserError(`${path}: line ${i + 1} is not JSON`, { exitCode: 1, cause: error });
    }
  });
}

/** Keeps the records that `isKept` accepts, and no torn line; the file is replaced atomically. */
export async function filterLines(
  path: string,
  isKept: (record: Readonly<Record<string, unknown>>) => boolean,
): Promise<void> {
  const kept = (await readLines(path)).filter(isKept);
  await writeFileAtomic(path, kept.map((record) => `${JSON.stringify(record)}\n`).join(""));
}
