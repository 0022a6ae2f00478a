// JSON objects in files, with one wording for what can be wrong with them.

import { readFile } from "node:fs/promises";
import { messageOf, UserError, type UserErrorOptions } from "../core/errors.ts";
import { isRecord, type JsonObject } from "../core/json.ts";
import { writeFileAtomic } from "./atomic.ts";

export { isRecord, type JsonObject };

/** The object in a file; a UserError names the file where it is missing or broken. */
export async function readJson(path: string, hint?: string): Promise<JsonObject> {
  const text = await readFile(path, "utf8").catch((cause: unknown) => {
    throw new UserError(`cannot read ${path}: ${messageOf(cause)}`, { hint, cause });
  });
  return parseObject(text, path, { hint });
}

/** The same; undefined where there is no such file or it is damaged. */
export async function readJsonIfSound(path: string): Promise<JsonObject | undefined> {
  return readJson(path).catch(() => undefined);
}

/** A text as an object; `where` names it in errors. */
export function parseObject(
  text: string,
  where: string,
  options: UserErrorOptions = {},
): JsonObject {
  let json: unknown;
  try {
    json = JSON.parse(text);
  } catch (cause) {
    throw new UserError(`${where} is not JSON: ${messageOf(cause)}`, { ...options, cause });
  }
  if (isRecord(json)) return json;
  throw new UserError(`${where} must hold a JSON object`, options);
}

/** Replaces the file by the value, indented for people. */
export async function writeJson(path: string, value: unknown): Promise<void> {
  await writeFileAtomic(path, `${JSON.stringify(value, null, 2)}\n`);
}
