// Where data lies: a file or a folder becomes files by split, and a split becomes the parts of files that it reads.

import { readdir, stat } from "node:fs/promises";
import { basename, join } from "node:path";
import { UserError } from "../../core/errors.ts";

export const dataFormats = ["txt", "jsonl", "parquet", "bin"] as const;
export type DataFormat = (typeof dataFormats)[number];

/** A data source on this machine: its files by split, in the order of their rows. */
export interface DataFiles {
  readonly name: string;
  readonly splits: Readonly<Record<string, readonly string[]>>;
}

/** The share of a file from `begin` to `end`, 0 to 1; each format rounds to its own units. */
export interface FilePart {
  readonly path: string;
  readonly begin: number;
  readonly end: number;
}

export interface DataSplit {
  readonly split: string;
  readonly format: DataFormat;
  readonly parts: readonly FilePart[];
  /** For people: "wikitext, validation", "the last 5 % of notes.txt". */
  readonly description: string;
}

/**
 * Finds the data at a path: one .txt, .jsonl, .parquet or .bin file is all training data; in a folder, files are told
 * apart by "train", "validation" (valid, val, dev) and "test" in their names, and where no name says so, all train.
 */
export async function findDataFiles(path: string): Promise<DataFiles> {
  const name = basename(path);
  const info = await stat(path).catch(() => undefined);
  if (!info) throw new UserError(`no data at ${path}`, { hint: "give a file, a folder or a name" });
  if (!info.isDirectory()) {
    if (formatOf(path)) return { name, splits: { train: [path] } };
    throw new UserError(`${path}: unknown kind of data`, { hint: `expected ${expectedFormats}` });
  }
  const files = (await readdir(path)).filter(formatOf).sort();
  if (files.length === 0) {
    throw new UserError(`${path} holds no data file`, { hint: `expected ${expectedFormats}` });
  }
  const splits: Record<string, string[]> = {};
  for (const file of files) {
    const split = splitOf(file);
    if (split) (splits[split] ??= []).push(join(path, file));
  }
  if (Object.keys(splits).length === 0) splits["train"] = files.map((file) => join(path, file));
  return { name, splits };
}

/**
 * Chooses what to read. `train` gives way to a held-out tail where no validation split exists (share `holdOut`, 0 to
 * keep it); `validation` is that tail then; `evaluation` is the validation split, else the test split, else all there
 * is. Any other name must be a split of the data.
 */
export function selectSplit(data: DataFiles, use: string, holdOut = 0): DataSplit {
  const { splits } = data;
  if (use === "evaluation") {
    const split = ["validation", "test", "train"].find((name) => splits[name]);
    return selectSplit(data, split ?? "validation");
  }
  const files = splits[use];
  const train = splits["train"];
  if (!files && use === "validation" && train && holdOut > 0) return tailOf(train, holdOut);
  if (!files) {
    throw new UserError(`${data.name} has no ${use} split, only ${Object.keys(splits).join(", ")}`);
  }
  const format = commonFormat(files);
  const parts = files.map((path) => ({ path, begin: 0, end: 1 }));
  if (use !== "train" || splits["validation"] || holdOut === 0)
    return { split: use, format, parts, description: describe(data, use) };
  parts.at(-1)!.end = 1 - holdOut;
  const description = `${data.name} without its last ${percent(holdOut)}`;
  return { split: use, format, parts, description };
}

function tailOf(train: readonly string[], holdOut: number): DataSplit {
  const path = train.at(-1)!;
  return {
    split: "validation",
    format: commonFormat(train),
    parts: [{ path, begin: 1 - holdOut, end: 1 }],
    description: `the last ${percent(holdOut)} of ${basename(path)}`,
  };
}

const percent = (share: number) => `${Number((100 * share).toPrecision(3))} %`;

function describe(data: DataFiles, split: string): string {
  const isWhole = Object.keys(data.splits).length === 1 && split === "train";
  return isWhole ? data.name : `${data.name}, ${split}`;
}

const expectedFormats = `a ${dataFormats.map((format) => `.${format}`).join(", ")} file`;

function formatOf(path: string): DataFormat | undefined {
  return dataFormats.find((format) => path.toLowerCase().endsWith(`.${format}`));
}

function commonFormat(files: readonly string[]): DataFormat {
  const [format, ...others] = new Set(files.map(formatOf));
  if (format && others.length === 0) return format;
  const names = files.map((file) => basename(file)).join(", ");
  throw new UserError(`one split in several formats: ${names}`, {
    hint: "keep one of them in the folder, or name the file itself",
  });
}

/** The split that a file's name tells: a whole word of it, such as "wiki.valid.raw.txt" or "train-00000-of-00002". */
function splitOf(file: string): string | undefined {
  const words = file.toLowerCase().split(/[^a-z]+/);
  if (words.includes("train")) return "train";
  if (words.some((word) => ["validation", "valid", "val", "dev"].includes(word)))
    return "validation";
  return words.includes("test") ? "test" : undefined;
}
