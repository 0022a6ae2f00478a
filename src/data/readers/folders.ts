// Which files of a folder are data, and of which split: as `datasets` saved it, as its README.md says, or by their names.

import { readdir, readFile } from "node:fs/promises";
import { basename, join, relative } from "node:path";
import { didYouMean, UserError } from "../../core/errors.ts";
import { configsOf, defaultConfig, likePattern } from "../../files/card.ts";
import { readJsonIfSound } from "../../files/json.ts";
import { splitNamed, splitOf } from "../../files/names.ts";
import { staysInside } from "../../files/safetensors.ts";

/** Files in the order of their rows, with the split of each; undefined for those that are not read. */
type Found = readonly (readonly [split: string | undefined, file: string])[];

type IsData = (path: string) => unknown;

/** The files of a folder's data, or of one of its configs. */
export async function filesInFolder(folder: string, config: string | undefined, isData: IsData) {
  const saved = config ? undefined : await filesSaved(folder);
  const told = saved ?? (await filesByCard(folder, config, isData));
  return told ?? filesByName(folder, inFolder, isData);
}

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

/** Told apart where a name in a folder, or every name that another pattern gives, says its split. */
export async function filesByName(folder: string, patterns: readonly string[], isData: IsData) {
  for (const pattern of patterns) {
    const files = (await filesLike(folder, pattern)).filter(isData);
    const isDeep = pattern === "**" && patterns === inFolder;
    const named = files.map((file) => splitIn(isDeep ? relative(folder, file) : basename(file)));
    const isNamed = patterns === inFolder ? named.some(Boolean) : named.every(Boolean);
    const splitFor = (file: string) => (isAbout(file) ? undefined : "train");
    if (!files.every(isAbout) && (isNamed || !isDeep))
      return files.map((file, i) => [isNamed ? named[i] : splitFor(file), file] as const);
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

/** The files of a config, where a README.md has `configs` in its front matter. */
async function filesByCard(root: string, config: string | undefined, isData: IsData) {
  const card = await readFile(join(root, "README.md"), "utf8").catch(() => "");
  const known = configsOf(card);
  if (known.length === 0 && !config) return undefined;
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
  if (!chosen.files) return filesByName(folder, inFolder, isData);
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

/** Paths in a folder like a pattern. */
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
