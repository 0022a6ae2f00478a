// A data set by name: the parquet files of its splits on this machine, filled from the hub where they must be.

import { didYouMean, UserError } from "../core/errors.ts";
import { cachedSnapshots, type Snapshot } from "./cache.ts";
import { downloadFiles } from "./download.ts";
import type { HubSettings } from "./environment.ts";
import { NoRevisionError, offlineFailure } from "./failures.ts";
import type { ResolveOptions } from "./model.ts";
import { DEFAULT_CONFIG, isComplete, parquetTable, type ParquetTable } from "./parquet-layout.ts";
import { fetchSnapshot } from "./request.ts";
import { nameOf, parseDatasetName, type DatasetSpec, type HubRepo } from "./repo-id.ts";

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
type Choice = Readonly<{ config: string; splits: [split: string, paths: readonly string[]][] }>;

// Where the hub keeps every public data set converted to parquet, as config/split/0000.parquet.
const REVISIONS = ["main", "refs/convert/parquet"] as const;

/**
 * The parquet files of `wikitext`, `wikitext-103` or any `id[:config][@split]`, from the repository itself or from the
 * branch that the hub converts; used without a request where they are cached.
 */
export async function resolveDataset(
  name: string,
  settings: HubSettings,
  { splits, ...options }: ResolveDatasetOptions = {},
): Promise<ResolvedDataset> {
  const spec = parseDatasetName(name);
  const repos = REVISIONS.map((revision) => ({ ...spec, type: "dataset", revision }) as const);
  const wanted = spec.split === undefined ? splits : [spec.split];
  for (const repo of repos)
    for await (const snapshot of cachedSnapshots(settings, repo)) {
      const choice = await cachedChoice(snapshot, repo, settings.offline, wanted);
      if (choice) return located(snapshot, repo, choice);
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
    const table = parquetTable((await snapshot?.files()) ?? []);
    if (snapshot === undefined || table.size === 0) continue;
    const choice = choose(table, repo, wanted);
    const paths = choice.splits.flatMap(([, files]) => files);
    await downloadFiles(context, snapshot, paths);
    return located(snapshot, repo, choice);
  }
  const problem = "has no parquet files, and the hub has converted none";
  throw new UserError(`${nameOf(repos[0]!)} ${problem}`, {
    hint: "download its text yourself and name the .txt, .jsonl or .parquet file",
  });
}

/** What a cached snapshot gives of what is wanted, if that is surely all. */
async function cachedChoice(
  snapshot: Snapshot,
  repo: DatasetRepo,
  isOffline: boolean,
  wanted?: readonly string[],
): Promise<Choice | undefined> {
  const isListed = snapshot.listing !== undefined;
  const table = parquetTable(await snapshot.files());
  let choice: Choice;
  try {
    choice = choose(table, repo, wanted);
  } catch (error) {
    // Online, the hub may have by now what this commit lacks.
    if (isOffline && isListed && table.size > 0) throw error;
    return undefined;
  }
  for (const [, paths] of choice.splits) {
    if (!isListed && !isComplete(paths)) return undefined;
    for (const path of paths) if (!(await snapshot.has(path))) return undefined;
  }
  // Without the list of what exists, a split that is not here may still exist.
  const found = new Set(choice.splits.map(([split]) => split));
  const hoped = wanted ?? ["train", "validation", "test"];
  return isListed || isOffline || hoped.every((split) => found.has(split)) ? choice : undefined;
}

function located(snapshot: Snapshot, { id }: HubRepo, { config, splits }: Choice): ResolvedDataset {
  const files = splits.map(
    ([split, paths]) => [split, paths.map((path) => snapshot.pathOf(path))] as const,
  );
  return { files: Object.fromEntries(files), id, config, commit: snapshot.commit };
}

function choose(table: ParquetTable, repo: DatasetRepo, wanted?: readonly string[]): Choice {
  const configs = [...table.keys()];
  const config = repo.config ?? (configs.length === 1 ? configs[0]! : DEFAULT_CONFIG);
  const found = [...(table.get(config) ?? [])];
  if (found.length === 0 && repo.config === undefined)
    throw new UserError(`${nameOf(repo)} has several configs: ${listed(configs)}`, {
      hint: `name one, for instance ${repo.id}:${configs[0]}`,
    });
  if (found.length === 0) throw unknown(repo, "config", config, configs);
  const splits = found.filter(([split]) => wanted?.includes(split) ?? true);
  if (splits.length > 0) return { config, splits };
  throw unknown(
    repo,
    "split",
    listed(wanted ?? []),
    found.map(([split]) => split),
  );
}

function unknown(repo: HubRepo, what: string, word: string, known: readonly string[]): UserError {
  return new UserError(`${nameOf(repo)} has no ${what} "${word}"; it has ${listed(known)}`, {
    hint: didYouMean(word, known),
  });
}

function listed(names: readonly string[]): string {
  const more = names.length > 20 ? ` and ${names.length - 20} more` : "";
  return names.slice(0, 20).join(", ") + more;
}
