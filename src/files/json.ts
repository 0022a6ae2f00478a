// JSON objects in files, one in a file or one per line, with one wording for what can be wrong with them.

import { appendFile, readFile } from "node:fs/promises";
import { messageOf, UserError } from "../core/errors.ts";
import { type JsonObject, parseObject } from "../core/json.ts";
import { checkFile, failing, readIfPresent, writeFileAtomic } from "./atomic.ts";

/** The object in a file; a UserError names the file where it is missing or broken. */
export async function readJson(path: string, hint?: string): Promise<JsonObject> {
  await checkFile(path);
  const text = await readFile(path, "utf8").catch((cause: unknown) => {
    throw new UserError(`cannot read ${path}: ${messageOf(cause)}`, { hint, cause });
  });
  return parseObject(text, path, { hint });
}

/** The same; undefined where there is no such file or it is damaged. */
export const readJsonIfSound = (path: string) => readJson(path).catch(() => undefined);

/** Replaces the file by the value, indented for people. */
export const writeJson = (path: string, value: unknown) =>
  writeFileAtomic(path, `${JSON.stringify(value, null, 2)}\n`);

/** Appends a record as a line, which is in the hands of the system, not of this process, when the promise resolves. */
export const appendLine = (path: string, record: JsonObject): Promise<void> =>
  appendFile(path, `${JSON.stringify(record)}\n`).catch(failing(path));

/** The records of a file, a line each, without the torn last one of a killed writer; none where there is no file. */
export async function readLines(path: string): Promise<JsonObject[]> {
  const lines = String((await readIfPresent(path)) ?? "").split("\n");
  lines.pop(); // empty after a whole last line, else the torn one
  return lines.map((line, i) => parseObject(line, `${path}: line ${i + 1}`, { exitCode: 1 }));
}
