// A model's own tokenizer, from its local folder.

import { createHash } from "node:crypto";
import { join } from "node:path";
import { createContext, Script } from "node:vm";
import { readIfPresent } from "../../files/atomic.ts";
import { readTokenizer } from "./read-tokenizer.ts";

/** Loads a folder's tokenizer; never asks a network. */
export const loadTokenizer = (folder: string) =>
  readTokenizer({
    folder,
    read: (name) => readIfPresent(join(folder, name)),
    sha256: (parts) => createHash("sha256").update(Buffer.concat(parts)).digest("hex"),
    within,
  });

const context = createContext({ run: undefined });
const script = new Script("run()");

function within<T>(milliseconds: number, work: () => T): T {
  context["run"] = work;
  return script.runInContext(context, { timeout: milliseconds }) as T;
}
