// Tokenized data on disk: everything that reading the data again would give, behind its checksum.

import { createHash } from "node:crypto";
import { join } from "node:path";
import { deserialize, serialize } from "node:v8";
import { codeOf, UserError } from "../../core/errors.ts";
import { readIfPresent, replaceFile, makeFolder } from "../../files/atomic.ts";

/** What another version wrote is made anew. */
const cacheVersion = 6;

const digest = (bytes: string | Uint8Array) => createHash("sha256").update(bytes).digest();

/** What `make` gives, kept under all that it depends on. What is damaged is made anew; a cache that cannot be written is done without. */
export async function throughCache<Value>(
  folder: string,
  dependsOn: object,
  make: () => Promise<Value>,
): Promise<Value> {
  const name = digest(JSON.stringify({ cacheVersion, ...dependsOn })).toString("hex");
  const path = join(folder, `${name}.tokens`);
  try {
    const file = await readIfPresent(path);
    const bytes = file!.subarray(32);
    if (digest(bytes).equals(file!.subarray(0, 32))) return deserialize(bytes) as Value;
  } catch {
    // as if it were not there
  }
  const value = await make();
  try {
    await makeFolder(folder);
    const bytes = serialize(value);
    await replaceFile(path, async (handle) => {
      for (const part of [digest(bytes), bytes]) await handle.writeFile(part);
    });
  } catch (error) {
    if (!(error instanceof UserError) && codeOf(error) === undefined) throw error;
  }
  return value;
}
