// The place of this package.

import { existsSync } from "node:fs";
import { dirname, join } from "node:path";

/** Where this package is, with its recipes/ and checkpoints/: built, the program lies one folder deeper than its source. */
export const packageRoot = (folder = import.meta.dirname): string =>
  existsSync(join(folder, "package.json")) ? folder : packageRoot(dirname(folder));
