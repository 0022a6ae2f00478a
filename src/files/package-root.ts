// The places of this package and of those that it needs.

import { existsSync } from "node:fs";
import { createRequire } from "node:module";
import { dirname, join } from "node:path";
import { UserError } from "../core/errors.ts";

/** Where this package is, with its recipes/ and checkpoints/: built, the program lies one folder deeper than its source. */
export const packageRoot = (folder = import.meta.dirname): string =>
  existsSync(join(folder, "package.json")) ? folder : packageRoot(dirname(folder));

/** Where a package has its entry point, or another file; `purpose` says what it is for where it is missing. */
export function installedFolder(name: string, purpose: string, file = name): string {
  try {
    return dirname(createRequire(import.meta.url).resolve(file));
  } catch (cause) {
    throw new UserError(`${name}, ${purpose}, is missing`, { hint: `npm install ${name}`, cause });
  }
}
