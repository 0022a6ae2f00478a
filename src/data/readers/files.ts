// Data on this machine: the formats of its files, where they lie, and which of them a use reads.

import { existsSync } from "node:fs";
import { readdir, readFile, stat } from "node:fs/promises";
import { basename, join } from "node:path";
import { didYouMean, UserError } from "../../core/errors.ts";
import { checkFile } from "../../files/atomic.ts";
import { splitNamed, splitOf } from "../../files/names.ts";
import type { Piece, Tokens } from "../document.ts";
import { readParquet } from "./parquet.ts";
import { type RowOptions, rows } from "./rows.ts";
import { readCsv, readJson, readJsonLines, readPlainText } from "./text.ts";
import { readTokenFile } from "./token-file.ts";

type Format = { readonly extensions: readonly string[] } & (
  | { readonly holds: "text"; read(path: string, options: RowOptions): AsyncIterable<Piece> }
  | { readonly holds: "tokens"; read(path: string, vocabSize: number): Promise<Tokens> }
);

const orGzip = (...names: readonly string[]) => names.flatMap((name) => [name, `${name}.gz`]);

/** The kinds of data files. A new one is a reader and a row here. */
export const formats = {
  txt: { extensions: orGzip(".txt", ".md"), holds: "text", read: readPlainText },
  jsonl: { extensions: orGzip(".jsonl"), holds: "text", read: rows(readJsonLines) },
  json: { extensions: orGzip(".json"), holds: "text", read: rows(readJson) },
  csv: { extensions: orGzip(".csv", ".tsv"), holds: "text", read: rows(readCsv) },
  parquet: { extensions: [".parquet"], holds: "text", read: rows(readParquet) },
  bin: { extensions: [".bin", ".npy"], holds: "tokens", read: readTokenFile },
} satisfies Readonly<Record<string, Format>>;
export type DataFormat = keyof typeof formats;

const extensions = Object.values(formats).flatMap((format) => format.extensions);
const expected = `expected ${extensions.filter((name) => !name.endsWith(".gz")).join(", ")}, or text behind .gz`;

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
}

type Found = readonly (readonly [split: string | undefined, file: string])[];

/**
 * Finds the data at `PATH[:config][@split]`. One file is all training data. In a folder, a README.md that names the
 * files of each split is followed, as data sets on the hub have it; else those in it, or in `data` below it, are told
 * apart by "train", "validation" (valid, val, dev) and "test" in their names, and where no name says so, all train but
 * those about the data. Files that a pattern names are told apart where each name says its split.
 */
export async function findDataFiles(given: string): Promise<DataFiles> {
  const parts = existsSync(given) ? [] : /^(.+?)(?::([\w.+-]+))?(?:@([\w.+-]+))?$/s.exec(given);
  const [, path = given, config, split] = parts ?? [];
  const info = await stat(path).catch(() => undefined);
  const [, start = "", pattern = ""] = /^((?:[^*?]*\/)?)(.*)$/s.exec(path) ?? [];
  const found = !info
    ? await filesByName(start, [pattern], false)
    : !info.isDirectory() && !config
      ? ([["train", path]] as const)
      : ((await filesByCard(path, config)) ?? (await filesByName(path, ["*", "data/*"], true)));
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

/** Told apart where a name in a folder, or every name that a pattern gives, says its split. */
async function filesByName(folder: string, patterns: readonly string[], isFolder: boolean) {
  for (const pattern of patterns) {
    const files = (await filesLike(folder, pattern)).filter(formatOf);
    const named = files.map((file) => splitOf(basename(file)));
    const isNamed = isFolder ? named.some(Boolean) : named.every(Boolean);
    const splitFor = (file: string) => (isAbout(file) ? undefined : "train");
    if (!files.every(isAbout))
      return files.map((file, i) => [isNamed ? named[i] : splitFor(file), file] as const);
  }
  return [];
}

/** The files of a config, where a README.md has `configs` in its front matter. */
async function filesByCard(folder: string, config?: string): Promise<Found | undefined> {
  type Files = string | { readonly split: string; readonly path: string | readonly string[] };
  type Config = { config_name: string; default?: boolean; data_files?: Files | Files[] };
  const card = await readFile(join(folder, "README.md"), "utf8").catch(() => "");
  const { parseDocument } = await import("yaml");
  const front = parseDocument(/^---\r?\n([^]*?)\r?\n---/.exec(card)?.[1] ?? "").toJS() as unknown;
  const { configs = [] } = (front ?? {}) as { readonly configs?: readonly Config[] };
  const known = configs.filter(({ data_files }) => data_files);
  if (known.length === 0 && !config) return undefined;
  const names = known.map(({ config_name }) => config_name);
  const isDefault = (one: Config) => one.default || one.config_name === "default";
  const only = known.length === 1 ? known[0] : known.find(isDefault);
  const chosen = config ? known[names.indexOf(config)] : only;
  if (!chosen) {
    const problem = config ? `no config "${config}", but` : "several configs:";
    const near = config && didYouMean(config, names);
    throw new UserError(`${folder} has ${problem} ${names.join(", ") || "none"}`, {
      hint: near ?? (names[0] && `name one: ${folder}:${names[0]}`),
    });
  }
  const found: [string, string][] = [];
  for (const entry of [chosen.data_files!].flat()) {
    const { split, path } = typeof entry === "string" ? { split: "train", path: entry } : entry;
    for (const pattern of [path].flat()) {
      const files = await filesLike(folder, pattern.replace(/^\.\//, ""));
      if (files.length === 0)
        throw new UserError(`${folder}: README.md names ${pattern}, and there is no such file`, {
          hint: "is the clone complete? git lfs pull",
        });
      for (const file of files) found.push([splitNamed(split), file]);
    }
  }
  return found;
}

const globs: Readonly<Record<string, string>> = {
  "**/": "(.*/)?",
  "**": ".*",
  "*": "[^/]*",
  "?": "[^/]",
};

/** Paths in a folder like a pattern in which `*` and `?` stay in a folder and `**` does not; no hidden ones. */
async function filesLike(folder: string, pattern: string): Promise<string[]> {
  const recursive = /\/|\*\*/.test(pattern);
  const names = await readdir(folder || ".", { recursive }).catch(() => []);
  const source = pattern.replace(/\*\*\/?|[^\w/]/g, (part) => globs[part] ?? `\\${part}`);
  const isLike = new RegExp(`^(?!.*(^|/)\\.)${source}$`, "s");
  const paths = names.map((name) => name.replaceAll("\\", "/")).filter((name) => isLike.test(name));
  return paths.sort().map((path) => join(folder, path));
}

const about = /^(readme|licen[cs]e|requirements|dataset_info|state|package(-lock)?)\b/i;
/** Whether a file tells about a folder, or belongs to a program in it. */
const isAbout = (file: string) => about.test(basename(file));

export interface DataSplit {
  readonly format: DataFormat;
  readonly files: readonly string[];
  /** Which side of the data is read where a share of their end is held out. */
  readonly part?: { readonly side: "kept" | "held-out"; readonly share: number };
  /** For people: "wikitext, validation", "the last 5 % of notes.txt". */
  readonly description: string;
}

/**
 * Chooses what to read. `train` gives way to a held-out end where no validation split exists (share `holdOut`, 0 to
 * keep it); `validation` is that end then; `evaluation` is the validation split, else the test split, else all there
 * is. Any other name must be a split of the data.
 */
export function selectSplit({ name, splits }: DataFiles, use: string, holdOut = 0): DataSplit {
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
  return { format: format!, files, description, ...(side && { part: { side, share: holdOut } }) };
}
