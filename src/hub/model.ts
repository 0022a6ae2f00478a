// A model by folder or by name: its folder on this machine, filled from the hub where it must be.

import { join } from "node:path";
import { UserError } from "../core/errors.ts";
import { readIfPresent } from "../files/atomic.ts";
import { RepoCache, statIfPresent, type RepoListing } from "./cache.ts";
import { downloadFiles, type DownloadProgress } from "./download.ts";
import type { HubSettings } from "./environment.ts";
import { nameOf, offlineFailure } from "./failures.ts";
import { fetchCommit } from "./listing.ts";
import { isHubOnly, isName, parseModelName, type HubRepo } from "./repo-id.ts";

export interface ResolveOptions {
  readonly onProgress?: (progress: DownloadProgress) => void;
  readonly signal?: AbortSignal;
}

export interface ResolvedModel {
  /** Holds config.json, the tokenizer's files and the safetensors weights (in a cache, as links). */
  readonly folder: string;
  /** Of a model from the hub; a local folder has neither. */
  readonly id?: string;
  readonly commit?: string;
}

// Without these three no run can start, unless the repository is known not to have one.
const ESSENTIAL = ["config.json", "tokenizer.json", "tokenizer_config.json"];
const USEFUL = [
  "generation_config.json",
  "special_tokens_map.json",
  "added_tokens.json",
  "vocab.json",
  "merges.txt",
  "tokenizer.model",
  "chat_template.jinja",
  "chat_template.json",
  "ssa_config.json",
  // For the card and the licence of what is made of it.
  "README.md",
  "LICENSE",
];
const WEIGHTS = "model.safetensors";
/** A folder with this and no config.json is opened through the base that it names. */
const ADAPTER = "ssa_adapter.safetensors";
const INDEX = "model.safetensors.index.json";
const PICKLED = /\.(bin|pt|pth|ckpt|pkl)$/;

/**
 * The folder of a model. An existing folder wins; `hf:name` always means the hub, `./name` never.
 * What is cached in full is used without a request; else the files that are needed are fetched, pickles never.
 */
export async function resolveModel(
  nameOrPath: string,
  settings: HubSettings,
  options: ResolveOptions = {},
): Promise<ResolvedModel> {
  if (!isHubOnly(nameOrPath)) {
    const info = await statIfPresent(nameOrPath);
    if (info?.isDirectory()) return checkedFolder(nameOrPath);
    if (info)
      throw new UserError(`"${nameOrPath}" is a file, expected the folder of a model`, {
        hint: "name the folder that holds config.json",
      });
    if (/^(\.{0,2}[\\/]|~|[a-zA-Z]:[\\/])/.test(nameOrPath) || nameOrPath.endsWith("/"))
      throw new UserError(`there is no folder "${nameOrPath}"`, { hint: "check the path" });
  }
  const repo = parseModelName(nameOrPath);
  const missing = [];
  for (const id of [repo.id, ...repo.formerIds]) {
    const cached = await findCached(new RepoCache(settings.cacheDir, "model", id), repo.revision);
    if ("folder" in cached) return { ...cached, id: repo.id };
    missing.push(cached.missing);
  }
  if (settings.offline) throw offlineFailure(repo, missing[0] ?? "config.json", settings.cacheDir);
  return fetchModel(repo, settings, options);
}

async function checkedFolder(folder: string): Promise<ResolvedModel> {
  for (const file of ["config.json", ADAPTER])
    if (await statIfPresent(join(folder, file))) return { folder };
  throw new UserError(`the folder "${folder}" has no config.json, so it is not a model`, {
    hint: isName(folder)
      ? `a folder that exists wins over a name: for the model on the hub write hf:${folder}`
      : "name the folder that holds config.json",
  });
}

async function fetchModel(
  repo: HubRepo,
  settings: HubSettings,
  options: ResolveOptions,
): Promise<ResolvedModel> {
  const cache = new RepoCache(settings.cacheDir, "model", repo.id);
  const { commit, listing } = await fetchCommit({ settings, repo, signal: options.signal }, cache);
  const weights = weightsIn(repo, listing);
  const context = { settings, repo, cache, commit, ...options };
  const folder = cache.snapshot(commit);

  // The weights last: a snapshot that has them has the rest, so an interrupted one is never taken for whole.
  const small = [...ESSENTIAL, ...USEFUL].filter((file) => listing.has(file));
  await downloadFiles(context, listing, weights === INDEX ? [...small, INDEX] : small);
  const shards = weights === INDEX ? await shardsOf(cache, commit) : [WEIGHTS];
  const lost = shards.find((shard) => !listing.has(shard));
  if (lost !== undefined)
    throw new UserError(`${nameOf(repo)} names "${lost}" in ${INDEX} but does not have it`);
  await downloadFiles(context, listing, shards);
  return { folder, id: repo.id, commit };
}

function weightsIn(repo: HubRepo, listing: RepoListing): typeof WEIGHTS | typeof INDEX {
  if (!listing.has("config.json"))
    throw new UserError(`${nameOf(repo)} has no config.json, so it is not a transformers model`, {
      hint: "look for the original that it was converted from",
    });
  if (listing.has(WEIGHTS)) return WEIGHTS;
  if (listing.has(INDEX)) return INDEX;
  const pickled = [...listing.keys()].find((file) => PICKLED.test(file));
  if (pickled === undefined) throw new UserError(`${nameOf(repo)} has no ${WEIGHTS}`);
  throw new UserError(
    `${nameOf(repo)} has only pickled weights (${pickled}), which are never loaded`,
    {
      hint: "a pickle can run any code: save it as safetensors with model.save_pretrained(folder) in Python and name that folder",
    },
  );
}

/** The snapshot of a revision if it is whole, else the first essential file that it lacks. */
async function findCached(
  cache: RepoCache,
  revision: string,
): Promise<{ folder: string; commit: string } | { missing: string }> {
  const commit = await cache.commitOf(revision);
  if (commit === undefined) return { missing: "config.json" };
  const listing = await cache.readListing(commit);
  const isHere = (file: string) => cache.has(commit, file, listing?.get(file)?.sizeBytes);
  for (const file of ESSENTIAL) {
    const isExpected = listing ? listing.has(file) : !(await cache.isKnownAbsent(commit, file));
    if (isExpected && !(await isHere(file))) return { missing: file };
  }
  const isSharded = !(await isHere(WEIGHTS)) && (await isHere(INDEX));
  for (const file of isSharded ? await shardsOf(cache, commit) : [WEIGHTS])
    if (!(await isHere(file))) return { missing: file };
  return { folder: cache.snapshot(commit), commit };
}

/** The files that a snapshot's index names; `cache.pathOf` refuses those outside it. */
async function shardsOf(cache: RepoCache, commit: string): Promise<string[]> {
  const path = cache.pathOf(commit, INDEX);
  try {
    const index = JSON.parse(String(await readIfPresent(path))) as {
      weight_map: Record<string, string>;
    };
    return [...new Set(Object.values(index.weight_map))].toSorted();
  } catch (error) {
    throw new UserError(`${path} is not an index of weights`, { cause: error, exitCode: 1 });
  }
}
