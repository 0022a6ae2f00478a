// Where data lies: a file or a folder becomes files by split, and a use becomes the files that it reads.

import { readdir, stat } from "node:fs/promises";
import { basename, join } from "node:path";
import { UserError } from "../../core/errors.ts";
import { checkFile } from "../../files/atomic.ts";
import { formatOf, knownExtensions, type DataFormat } from "./formats.ts";

/** A data source on this machine: its files by split, in the order of their rows. */
export interface DataFiles {
  readonly name: string;
  readonly splits: Readonly<Record<string, readonly string[]>>;
  /** Data files that lie there and are not read. */
  readonly unread?: readonly string[];
}

export interface DataSplit {
  readonly split: string;
  readonly format: DataFormat;
  readonly files: readonly string[];
  /** Which side of the data is read where a share of their end is held out. */
  readonly part?: { readonly side: "kept" | "held-out"; readonly share: number };
  /** For people: "wikitext, validation", "the last 5 % of notes.txt". */
  readonly description: string;
}

/**
 * Finds the data at a path: one file is all training data; in a folder, files are told apart by "train", "validation"
 * (valid, val, dev) and "test" in their names, and where no name says so, all train but those about the data.
 */
export async function findDataFiles(path: string): Promise<DataFiles> {
  const name = basename(path);
  const info = await stat(path).catch(() => undefined);
  if (!info) throw new UserError(`no data at ${path}`, { hint: "give a file, a folder or a name" });
  if (!info.isDirectory()) {
    await checkFile(path);
    if (formatOf(path)) return { name, splits: { train: [path] } };
    throw new UserError(`${path}: unknown kind of data, expected ${knownExtensions}`);
  }
  const files = (await readdir(path)).filter(formatOf).sort();
  if (files.length === 0)
    throw new UserError(`${path} holds no data file, expected ${knownExtensions}`);
  const isNamed = files.some((file) => splitOf(file));
  const splits: Record<string, string[]> = {};
  const unread: string[] = [];
  for (const file of files) {
    await checkFile(join(path, file));
    const split = isNamed ? splitOf(file) : isAbout(file) ? undefined : "train";
    if (split) (splits[split] ??= []).push(join(path, file));
    else unread.push(file);
  }
  return { name, splits, ...(unread.length > 0 && { unread }) };
}

/** What a folder's files are read as, where some are not read. */
export function describeUnread({ name, splits, unread }: DataFiles): string | undefined {
  if (!unread) return undefined;
  const read = Object.entries(splits).map(
    ([split, files]) => `${files.map((file) => basename(file)).join(", ")} as ${split}`,
  );
  return `${name}: reading ${read.join("; ")}; not read: ${unread.join(", ")}`;
}

/**
 * Chooses what to read. `train` gives way to a held-out end where no validation split exists (share `holdOut`, 0 to
 * keep it); `validation` is that end then; `evaluation` is the validation split, else the test split, else all there
 * is. Any other name must be a split of the data.
 */
export function selectSplit(data: DataFiles, use: string, holdOut = 0): DataSplit {
  const { name, splits } = data;
  if (use === "evaluation") {
    const split = ["validation", "test", "train"].find((split) => splits[split]);
    return selectSplit(data, split ?? "validation");
  }
  const isDivided = holdOut > 0 && !splits["validation"] && splits["train"];
  const side = isDivided && ({ train: "kept", validation: "held-out" } as const)[use];
  const files = splits[side ? "train" : use];
  if (!files)
    throw new UserError(`${name} has no ${use} split, only ${Object.keys(splits).join(", ")}`);
  const found = { split: use, format: commonFormat(files), files };
  const end = `last ${Number((100 * holdOut).toPrecision(3))} %`;
  if (side) {
    const description = side === "kept" ? `${name} without its ${end}` : `the ${end} of ${name}`;
    return { ...found, part: { side, share: holdOut }, description };
  }
  const isWhole = Object.keys(splits).length === 1 && use === "train";
  return { ...found, description: isWhole ? name : `${name}, ${use}` };
}

function commonFormat(files: readonly string[]): DataFormat {
  const [format, ...others] = new Set(files.map(formatOf));
  if (format && others.length === 0) return format;
  const names = files.map((file) => basename(file)).join(", ");
  throw new UserError(`one split in several formats: ${names}`, {
    hint: "keep one of them in the folder, or name the file itself",
  });
}

const splitWords: Readonly<Record<string, readonly string[]>> = {
  train: ["train"],
  validation: ["validation", "valid", "val", "dev"],
  test: ["test"],
};

/** The split that a file's name tells: a whole word of it, such as "wiki.valid.raw.txt" or "train-00000-of-00002". */
function splitOf(file: string): string | undefined {
  const words = file.toLowerCase().split(/[^a-z]+/);
  return Object.keys(splitWords).find((split) =>
    splitWords[split]!.some((word) => words.includes(word)),
  );
}

/** Whether a file tells about a folder, or belongs to a program in it. */
function isAbout(file: string): boolean {
  return /^(readme|licen[cs]e|requirements|dataset_info|state|package(-lock)?)\b/i.test(file);
}
