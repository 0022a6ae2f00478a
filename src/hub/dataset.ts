// A data set by name: the parquet files of its splits on this machine, filled from the hub where they must be.

import { readFile } from "node:fs/promises";
import { join } from "node:path/posix";
import { didYouMean, orElse, UserError } from "../core/errors.ts";
import { configsOf, defaultConfig, likePattern, type CardConfigs } from "../files/card.ts";
import { modelFiles, splitNamed, splitOf } from "../files/names.ts";
import { cachedSnapshots, fetchSnapshot, type Snapshot } from "./cache.ts";
import { downloadFiles } from "./download.ts";
import type { HubContext, HubSettings } from "./environment.ts";
import type { ResolveOptions } from "./model.ts";
import { nameOf, parseDatasetName, type DatasetSpec, type HubRepo } from "./repo-id.ts";
import { NoRevisionError, offlineFailure } from "./request.ts";

type DatasetRepo = DatasetSpec & HubRepo;

interface DatasetOptions extends ResolveOptions {
  readonly splits?: readonly string[];
  readonly isPart?: boolean;
}

// Where the hub keeps every public data set converted to parquet, as config/split/0000.parquet.
const REVISIONS = ["main", "refs/convert/parquet"] as const;

/**
 * The parquet files of `wikitext`, `wikitext-103` or any `id[:config][@split]`, from the repository itself or from the
 * branch that the hub converts; used without a request where they are cached. Of the splits that exist those in `splits`
 * come here, or all; a split in the name overrules that. Where only a part of them is wanted, each comes when `bring` is
 * asked for it: whole, for the hub states a checksum of whole files alone.
 */
export async function resolveDataset(
  name: string,
  settings: HubSettings,
  { splits, isPart = false, ...options }: DatasetOptions = {},
) {
  const spec = parseDatasetName(name);
  const repos = REVISIONS.map((revision) => ({ ...spec, type: "dataset", revision }) as const);
  const wanted = spec.split === undefined ? splits : [spec.split];
  for (const repo of repos)
    for await (const snapshot of cachedSnapshots(settings, repo)) {
      const chosen = await cachedChoice(snapshot, repo, settings.offline, { wanted, isPart });
      if (chosen) return located(snapshot, { settings, repo, ...options }, chosen, isPart);
    }
  if (settings.offline) {
    const what = [spec.config, spec.split ?? "train"].filter(Boolean).join("/");
    throw offlineFailure(repos[0]!, `${what} (parquet)`, settings.cacheDir);
  }
  for (const repo of repos) {
    const context = { settings, repo, ...options };
    const snapshot = await fetchSnapshot(context).catch((error: unknown) => {
      if (!(error instanceof NoRevisionError) || repo.revision === "main") throw error;
    });
    if (!snapshot) continue;
    if (snapshot.listing?.has(CARD)) await downloadFiles(context, snapshot, [CARD]);
    const found = await foundIn(snapshot);
    if (found.files.length === 0) continue;
    const chosen = choose(found, repo, wanted);
    const names = chosen.map(({ path }) => path);
    if (!isPart) await downloadFiles(context, snapshot, names);
    return located(snapshot, context, chosen, isPart);
  }
  const hint = "download its text yourself and name the .txt, .jsonl or .parquet file";
  const problem = "has no parquet files, and the hub has converted none";
  throw new UserError(`${nameOf(repos[0]!)} ${problem}`, { hint });
}

/** What a cached snapshot gives of what is wanted, if that is surely all. */
async function cachedChoice(
  snapshot: Snapshot,
  repo: DatasetRepo,
  isOffline: boolean,
  { wanted, isPart }: { readonly wanted: readonly string[] | undefined; readonly isPart: boolean },
): Promise<ParquetFiles | undefined> {
  const isListed = snapshot.listing !== undefined;
  if (!isOffline && snapshot.listing?.has(CARD) && !(await snapshot.has(CARD))) return undefined;
  const found = await foundIn(snapshot);
  const choice = () => choose(found, repo, wanted);
  // Online, the hub may have by now what this commit lacks.
  const isAll = isOffline && isListed && found.files.length > 0;
  const chosen = isAll ? choice() : orElse(choice, undefined);
  if (!chosen || (isPart && isListed)) return chosen;
  for (const { path } of chosen) if (!(await snapshot.has(path))) return undefined;
  if (isListed) return chosen;
  // Without the list of what exists, a split or a part that is not here may still exist.
  const splits = splitsOf(chosen);
  const hoped = isOffline ? [] : (wanted ?? ["train", "validation", "test"]);
  return isComplete(chosen) && hoped.every((split) => splits.includes(split)) ? chosen : undefined;
}

/** Local files by split, in the order of their rows, and how one that is not here yet comes. */
function located(snapshot: Snapshot, context: HubContext, chosen: ParquetFiles, isPart: boolean) {
  const { settings, repo } = context;
  const bySplit = splitsOf(chosen).map((split) => {
    const files = chosen.filter((file) => file.split === split);
    return [split, files.map(({ path }) => snapshot.pathOf(path))] as const;
  });
  const files = Object.fromEntries(bySplit);
  const bring = async (file: string) => {
    const { path } = chosen.find(({ path }) => snapshot.pathOf(path) === file)!;
    if (settings.offline && !(await snapshot.has(path)))
      throw offlineFailure(repo, path, settings.cacheDir);
    await downloadFiles(context, snapshot, [path]);
  };
  const { config } = chosen[0]!;
  return { files, id: repo.id, config, commit: snapshot.commit, ...(isPart && { bring }) };
}

function choose({ files, usual }: Found, repo: DatasetRepo, wanted?: readonly string[]) {
  const configs = [...new Set(files.map(({ config }) => config))];
  const config = repo.config ?? (configs.length === 1 ? configs[0]! : usual);
  const found = files.filter((file) => file.config === config);
  const fail = (problem: string, known: readonly string[], hint?: string): never => {
    const more = known.length > 20 ? ` and ${known.length - 20} more` : "";
    const list = known.slice(0, 20).join(", ") + more;
    throw new UserError(`${nameOf(repo)} has ${problem} ${list}`, { hint });
  };
  const lacks = (what: string, word: string, known: readonly string[]) =>
    fail(`no ${what} "${word}"; it has`, known, didYouMean(word, known));
  if (found.length === 0 && repo.config === undefined)
    fail("several configs:", configs, `name one, for instance ${repo.id}:${configs[0]}`);
  if (found.length === 0) lacks("config", config, configs);
  const chosen = found.filter(({ split }) => wanted?.includes(split) ?? true);
  return chosen.length > 0 ? chosen : lacks("split", wanted!.join(", "), splitsOf(found));
}

type ParquetFiles = readonly Readonly<{ path: string; config: string; split: string }>[];

/** The config of files that lie in no folder of their own. */
const DEFAULT_CONFIG = "default";

const CARD = modelFiles.card;

type Found = Awaited<ReturnType<typeof foundIn>>;

/** What there is, and the config that is meant where none is named: as README.md says, or by names. */
async function foundIn(snapshot: Snapshot) {
  const card = (await snapshot.has(CARD)) && (await readFile(snapshot.pathOf(CARD), "utf8"));
  const configs = configsOf(card || "");
  const files = parquetFiles(await snapshot.files(), configs);
  return { files, usual: defaultConfig(configs)?.name ?? DEFAULT_CONFIG };
}

/** The parquet files among `paths`, sorted: those of the configs, or all, with what their folders and names tell. */
export function parquetFiles(paths: Iterable<string>, configs: CardConfigs = []): ParquetFiles {
  const names = [...paths].filter((path) => path.endsWith(".parquet")).toSorted();
  if (configs.length === 0) return names.map((path) => ({ path, ...placeOf(path) }));
  const parts = configs.flatMap(({ name: config, folder, files = [[undefined, "**"] as const] }) =>
    files.map(([split, pattern]) => ({ config, split, like: likePattern(join(folder, pattern)) })),
  );
  return parts.flatMap(({ config, split, like }) => {
    const found = names.filter((path) => like.test(path));
    return found.map((path) => ({ path, config, split: split ?? placeOf(path).split }));
  });
}

/**
 * `config/split-00000-of-00001.parquet`, `data/split-….parquet`, `config/split/0000.parquet` (the converted branch),
 * else by a word such as "train" in the file's or folder's name; files that say nothing are training data.
 */
function placeOf(path: string): { config: string; split: string } {
  const folders = path.split("/");
  const name = (folders.pop() ?? "").slice(0, -".parquet".length);
  const sharded = name.match(/^(.+?)[-_.]\d{5}-of-\d{5}/)?.[1];
  let split = sharded && splitNamed(sharded);
  if (/^\d+$/.test(name) && folders.length >= 2) split = folders.pop();
  split ??= splitOf(name) ?? (splitOf(folders.at(-1) ?? "") && splitOf(folders.pop()!));
  if (folders[0] === "data") folders.shift();
  return { config: folders.join("/") || DEFAULT_CONFIG, split: split ?? "train" };
}

const splitsOf = (files: ParquetFiles) => [...new Set(files.map(({ split }) => split))];

/** False if the names of a split's files (`…-00000-of-00002…`) say that there are more. */
const isComplete = (files: ParquetFiles) =>
  splitsOf(files).every((split) => {
    const parts = files.filter((file) => file.split === split);
    const count = parts[0]!.path.match(/-of-(\d{5})/)?.[1];
    return count === undefined || parts.length === Number(count);
  });
