// The front matter of a README.md; and what that of a data set says: its configs, and the files of each split of theirs.

import { parseDocument } from "yaml";
import { orElse } from "../core/errors.ts";
import { isRecord } from "../core/json.ts";
import { splitNamed } from "./names.ts";

/** Patterns are of the config's own folder; without them the names of the files there tell. */
export type CardConfigs = readonly Readonly<{
  name: string;
  isDefault: boolean;
  folder: string;
  files?: readonly (readonly [split: string, pattern: string])[];
}>[];

const textOr = (value: unknown, other: string) => (typeof value === "string" ? value : other);

/** The front matter of a README.md; empty where it has none. */
export const frontMatterOf = (card: string) =>
  /^\uFEFF?---\r?\n([^]*?)\r?\n---/.exec(card)?.[1] ?? "";

/** The configs of a README.md; none where it has no such list, or something else in its place. */
export function configsOf(card: string): CardConfigs {
  // Aliases may have no end.
  const front = orElse(() => parseDocument(frontMatterOf(card)).toJS() as unknown, undefined);
  const configs = isRecord(front) ? [front["configs"]].flat() : [];
  return configs.filter(isRecord).flatMap(({ config_name, data_files, data_dir, ...config }) => {
    const name = textOr(config_name, "default");
    const folder = textOr(data_dir, "").replace(/^\.\/|\/+$/g, "");
    const files = [data_files].flat().flatMap((entry: unknown) => {
      const { split, path } = isRecord(entry) ? entry : { split: "train", path: entry };
      const patterns = [path].flat().filter((pattern) => typeof pattern === "string");
      const told = splitNamed(textOr(split, "train"));
      return patterns.map((pattern) => [told, pattern.replace(/^\.\//, "")] as const);
    });
    const isDefault = config["default"] === true || name === "default";
    const isSaid = files.length > 0;
    return isSaid || folder ? [{ name, isDefault, folder, ...(isSaid && { files }) }] : [];
  });
}

/** The config that is meant where none is named. */
export const defaultConfig = (configs: CardConfigs) =>
  configs.length === 1 ? configs[0] : configs.find(({ isDefault }) => isDefault);

const globs: Record<string, string> = { "**/": "(.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]" };

/** Of paths like a pattern, in which `*` and `?` stay in a folder and `**` does not; of no hidden ones. */
export function likePattern(pattern: string): RegExp {
  const source = pattern.replace(/\*\*\/?|[^\w/]/g, (part) => globs[part] ?? `\\${part}`);
  return new RegExp(`^(?!.*(^|/)\\.)${source}$`, "s");
}
