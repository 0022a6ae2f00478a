// Which config and split a parquet file of a repository belongs to, by the folder and file names in use on the hub.

/** Paths by config, then by split, both in the order of the paths. */
export type ParquetTable = ReadonlyMap<string, ReadonlyMap<string, readonly string[]>>;

/** The config of files that lie in no folder of their own. */
export const DEFAULT_CONFIG = "default";

const KEYWORDS: readonly (readonly [RegExp, string])[] = [
  [/(^|[^a-z0-9])(train|training)([^a-z0-9]|$)/i, "train"],
  [/(^|[^a-z0-9])(validation|valid|val|dev)([^a-z0-9]|$)/i, "validation"],
  [/(^|[^a-z0-9])(test|testing|eval|evaluation)([^a-z0-9]|$)/i, "test"],
];

/** Groups the parquet files among `paths`. */
export function parquetTable(paths: Iterable<string>): ParquetTable {
  const table = new Map<string, Map<string, string[]>>();
  for (const path of [...paths].toSorted()) {
    if (!path.endsWith(".parquet")) continue;
    const { config, split } = placeOf(path);
    const splits = table.get(config) ?? new Map<string, string[]>();
    table.set(config, splits.set(split, [...(splits.get(split) ?? []), path]));
  }
  return table;
}

/** False if the names of a split's files (`…-00000-of-00002…`) say that there are more. */
export function isComplete(paths: readonly string[]): boolean {
  const count = paths[0]?.match(/-of-(\d{5})/)?.[1];
  return count === undefined || paths.length === Number(count);
}

/**
 * `config/split-00000-of-00001.parquet`, `data/split-….parquet`, `config/split/0000.parquet` (the converted branch),
 * else by a word such as "train" in the file's or folder's name; files that say nothing are training data.
 */
function placeOf(path: string): { config: string; split: string } {
  const folders = path.split("/");
  const name = (folders.pop() ?? "").slice(0, -".parquet".length);
  const sharded = name.match(/^(.+?)[-_.]\d{5}-of-\d{5}/)?.[1];
  // "valid" is validation, but "train_sft" is a split of its own.
  let split = sharded?.match(/^[a-z]+$/i) ? (keywordIn(sharded) ?? sharded) : sharded;
  if (/^\d+$/.test(name) && folders.length >= 2) split = folders.pop();
  split ??= keywordIn(name);
  if (split === undefined && keywordIn(folders.at(-1) ?? ""))
    split = keywordIn(folders.pop() ?? "");
  if (folders[0] === "data") folders.shift();
  return { config: folders.join("/") || DEFAULT_CONFIG, split: split ?? "train" };
}

function keywordIn(text: string): string | undefined {
  return KEYWORDS.find(([pattern]) => pattern.test(text))?.[1];
}
