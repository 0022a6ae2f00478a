// Tokenized data on disk: everything that reading the data again would give, behind its checksum.

import { createHash } from "node:crypto";
import { mkdir } from "node:fs/promises";
import { join } from "node:path";
import { deserialize, serialize } from "node:v8";
import { codeOf, UserError } from "../../core/errors.ts";
import { readIfPresent, replaceFile } from "../../files/atomic.ts";

/** Part of each key: what another version wrote is made anew. */
export const cacheVersion = 6;

const pathOf = (folder: string, key: string): string => join(folder, `${key}.tokens`);
const digest = (bytes: Uint8Array): Buffer => createHash("sha256").update(bytes).digest();

/** A cache that cannot be written is done without. */
export async function writeCache(folder: string, key: string, value: unknown): Promise<void> {
  try {
    await mkdir(folder, { recursive: true });
    const bytes = serialize(value);
    await replaceFile(pathOf(folder, key), async (handle) => {
      for (const part of [digest(bytes), bytes]) await handle.writeFile(part);
    });
  } catch (error) {
    if (!(error instanceof UserError) && codeOf(error) === undefined) throw error;
  }
}

/** Undefined where there is nothing, or nothing sound: what is damaged is made anew. */
export async function readCache(folder: string, key: string): Promise<unknown> {
  try {
    const file = await readIfPresent(pathOf(folder, key));
    const bytes = file!.subarray(32);
    return digest(bytes).equals(file!.subarray(0, 32)) ? deserialize(bytes) : undefined;
  } catch {
    return undefined;
  }
}
