// A data set by name: the parquet files of its splits on this machine, filled from the hub where they must be.

import { didYouMean, UserError } from "../core/errors.ts";
import { RepoCache } from "./cache.ts";
import { downloadFiles } from "./download.ts";
import type { HubSettings } from "./environment.ts";
import { nameOf, NotOnHub, offlineFailure } from "./failures.ts";
import { fetchCommit } from "./listing.ts";
import type { ResolveOptions } from "./model.ts";
import { DEFAULT_CONFIG, isComplete, parquetTable, type ParquetTable } from "./parquet-layout.ts";
import { parseDatasetName, type DatasetSpec, type HubRepo } from "./repo-id.ts";

export interface ResolveDatasetOptions extends ResolveOptions {
  /** The splits to bring here, of those that exist; all that exist by default. A split in the name overrules this. */
  readonly splits?: readonly string[];
}

export interface ResolvedDataset {
  /** Local parquet files by split, in the order of their rows. */
  readonly files: Readonly<Record<string, readonly string[]>>;
  readonly id: string;
  readonly config: string;
  readonly commit: string;
}

type DatasetRepo = DatasetSpec & HubRepo;

/** The files chosen from one commit, as paths in the repository. */
interface Choice {
  readonly config: string;
  readonly splits: ReadonlyMap<string, readonly string[]>;
}

// Where the hub keeps every public data set converted to parquet, as config/split/0000.parquet.
const CONVERTED = "refs/convert/parquet";
const USUAL_SPLITS = ["train", "validation", "test"];

/**
 * The parquet files of `wikitext`, `wikitext-103` or any `id[:config][@split]`, from the repository itself or from the
 * branch that the hub converts; used without a request where they are cached.
 */
export async function resolveDataset(
  name: string,
  settings: HubSettings,
  options: ResolveDatasetOptions = {},
): Promise<ResolvedDataset> {
  const main: DatasetRepo = { ...parseDatasetName(name), type: "dataset", revision: "main" };
  const revisions = [main, { ...main, revision: CONVERTED }];
  for (const repo of revisions)
    for (const id of [repo.id, ...repo.formerIds]) {
      const cache = new RepoCache(settings.cacheDir, "dataset", id);
      const cached = await findCached(cache, repo, settings, options.splits);
      if (cached) return cached;
    }
  if (settings.offline) {
    const what = [main.config, main.split ?? "train"].filter(Boolean).join("/");
    throw offlineFailure(main, `${what} (parquet)`, settings.cacheDir);
  }
  for (const repo of revisions) {
    const fetched = await fetchDataset(repo, settings, options);
    if (fetched) return fetched;
  }
  const problem = "has no parquet files, and the hub has converted none";
  throw new UserError(`${nameOf(main)} ${problem}`, {
    hint: "download its text yourself and name the .txt, .jsonl or .parquet file",
  });
}

async function fetchDataset(
  repo: DatasetRepo,
  settings: HubSettings,
  options: ResolveDatasetOptions,
): Promise<ResolvedDataset | undefined> {
  const cache = new RepoCache(settings.cacheDir, "dataset", repo.id);
  let found;
  try {
    found = await fetchCommit({ settings, repo, signal: options.signal }, cache);
  } catch (error) {
    if (error instanceof NotOnHub && error.missing === "revision" && repo.revision === CONVERTED)
      return undefined;
    throw error;
  }
  const { commit, listing } = found;
  const table = parquetTable(listing.keys());
  if (table.size === 0) return undefined;
  const choice = choose(table, repo, options.splits);
  const context = { settings, repo, cache, commit, ...options };
  await downloadFiles(context, listing, [...choice.splits.values()].flat());
  return located(cache, commit, repo, choice);
}

async function findCached(
  cache: RepoCache,
  repo: DatasetRepo,
  settings: HubSettings,
  splits: readonly string[] | undefined,
): Promise<ResolvedDataset | undefined> {
  const commit = await cache.commitOf(repo.revision);
  if (commit === undefined) return undefined;
  const listing = await cache.readListing(commit);
  const table = parquetTable(listing?.keys() ?? (await cache.cachedFiles(commit)));
  let choice: Choice;
  try {
    choice = choose(table, repo, splits);
  } catch (error) {
    // Online, the hub may have by now what this commit lacks.
    if (!settings.offline || table.size === 0 || listing === undefined) return undefined;
    throw error;
  }
  const isHere = (file: string) => cache.has(commit, file, listing?.get(file)?.sizeBytes);
  for (const paths of choice.splits.values()) {
    if (listing === undefined && !isComplete(paths)) return undefined;
    for (const path of paths) if (!(await isHere(path))) return undefined;
  }
  // Without the list of what exists, a split that is not here may still exist.
  const wanted = repo.split === undefined ? (splits ?? USUAL_SPLITS) : [repo.split];
  const isWhole = listing !== undefined || wanted.every((split) => choice.splits.has(split));
  return isWhole || settings.offline ? located(cache, commit, repo, choice) : undefined;
}

function located(
  cache: RepoCache,
  commit: string,
  { id }: DatasetRepo,
  { config, splits }: Choice,
): ResolvedDataset {
  const files = [...splits].map(
    ([split, paths]) => [split, paths.map((path) => cache.pathOf(commit, path))] as const,
  );
  return { files: Object.fromEntries(files), id, config, commit };
}

function choose(
  table: ParquetTable,
  repo: DatasetRepo,
  wanted: readonly string[] | undefined,
): Choice {
  const configs = [...table.keys()];
  const only = configs.length === 1 ? configs[0] : undefined;
  const config = repo.config ?? only ?? (table.has(DEFAULT_CONFIG) ? DEFAULT_CONFIG : undefined);
  if (config === undefined)
    throw new UserError(`${nameOf(repo)} has several configs: ${listed(configs)}`, {
      hint: `name one, for instance ${repo.id}:${configs[0]}`,
    });
  const splits = table.get(config);
  if (splits === undefined) throw unknown(repo, "config", config, configs);
  if (repo.split !== undefined) {
    const paths = splits.get(repo.split);
    if (paths === undefined) throw unknown(repo, "split", repo.split, [...splits.keys()]);
    return { config, splits: new Map([[repo.split, paths]]) };
  }
  const chosen = [...splits].filter(([split]) => wanted === undefined || wanted.includes(split));
  if (chosen.length === 0) throw unknown(repo, "split", listed(wanted ?? []), [...splits.keys()]);
  return { config, splits: new Map(chosen) };
}

function unknown(repo: HubRepo, what: string, word: string, known: readonly string[]): UserError {
  return new UserError(`${nameOf(repo)} has no ${what} "${word}"; it has ${listed(known)}`, {
    hint: didYouMean(word, known),
  });
}

function listed(names: readonly string[]): string {
  return names.length <= 20
    ? names.join(", ")
    : `${names.slice(0, 20).join(", ")} and ${names.length - 20} more`;
}
