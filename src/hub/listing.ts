// What a repository holds: its revision resolved to a commit once, then the files of that commit.

import { didYouMean, messageOf, UserError } from "../core/errors.ts";
import { checkInside, type RepoCache, type RepoFile, type RepoListing } from "./cache.ts";
import { diskFailure, nameOf, NotOnHub, TransientFailure } from "./failures.ts";
import { isCommit } from "./repo-id.ts";
import { metadataFetch, type HubContext } from "./request.ts";

export interface Commit {
  readonly commit: string;
  readonly listing: RepoListing;
}

/** Asks the hub for the commit of a revision and for its files, and remembers both in the cache. */
export async function fetchCommit(context: HubContext, cache: RepoCache): Promise<Commit> {
  const { repo } = context;
  const commit = isCommit(repo.revision) ? repo.revision : await commitOf(context);
  const listing = (await cache.readListing(commit)) ?? (await filesOf(context, commit));
  try {
    await cache.rememberCommit(repo.revision, commit);
    await cache.writeListing(commit, listing);
  } catch (error) {
    throw diskFailure(error, `the listing of ${nameOf(repo)}`, context.settings.cacheDir);
  }
  return { commit, listing };
}

async function commitOf(context: HubContext): Promise<string> {
  const { repo, settings } = context;
  const { datasetInfo, modelInfo } = await import("@huggingface/hub");
  const params = {
    name: repo.id,
    revision: repo.revision,
    hubUrl: settings.endpoint,
    fetch: metadataFetch(context),
  };
  const info = await understood(context, async () => {
    try {
      return repo.type === "model"
        ? await modelInfo({ ...params, additionalFields: ["sha"] })
        : await datasetInfo({ ...params, additionalFields: ["sha"] });
    } catch (error) {
      throw error instanceof NotOnHub && error.missing === "revision"
        ? await withNearestRevision(context, error)
        : error;
    }
  });
  if (isCommit(info.sha)) return info.sha;
  throw notAHub(context, `its commit is ${JSON.stringify(info.sha)}`);
}

async function filesOf(context: HubContext, commit: string): Promise<RepoListing> {
  const { repo, settings } = context;
  const { listFiles } = await import("@huggingface/hub");
  const entries = listFiles({
    repo: { type: repo.type, name: repo.id },
    revision: commit,
    recursive: true,
    hubUrl: settings.endpoint,
    fetch: metadataFetch(context),
  });
  const listing = new Map<string, RepoFile>();
  return understood(context, async () => {
    for await (const { type, path, size, oid, lfs } of entries) {
      checkInside(path);
      if (type !== "file") continue;
      const hashes = { gitSha1: oid ?? "", sha256: lfs?.oid };
      // Both become file names.
      if (
        !/^[0-9a-f]{40}$/.test(hashes.gitSha1) ||
        !/^[0-9a-f]{64}$/.test(hashes.sha256 ?? "0".repeat(64))
      )
        throw notAHub(context, `${path} has no checksum`);
      listing.set(path, { sizeBytes: lfs?.size ?? size, ...hashes });
    }
    return listing;
  });
}

// Whatever the library stumbles over that is not an error of ours means an answer that no hub gives.
async function understood<T>(context: HubContext, work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (error) {
    context.signal?.throwIfAborted();
    if (error instanceof UserError || error instanceof TransientFailure) throw error;
    throw notAHub(context, messageOf(error));
  }
}

function notAHub(context: HubContext, reason: string): UserError {
  const { settings, repo } = context;
  return new UserError(
    `${settings.endpoint} does not answer as a hub does for ${nameOf(repo)} (${reason})`,
    { hint: "check HF_ENDPOINT, and that no login page of a network stands between", exitCode: 1 },
  );
}

async function withNearestRevision(context: HubContext, error: NotOnHub): Promise<NotOnHub> {
  const { repo, settings } = context;
  try {
    const response = await metadataFetch(context)(
      `${settings.endpoint}/api/${repo.type}s/${repo.id}/refs`,
    );
    const refs = (await response.json()) as Record<"branches" | "tags", { name: string }[]>;
    const names = [...refs.branches, ...refs.tags].map(({ name }) => name);
    const hint = didYouMean(repo.revision, names) ?? `it has ${names.slice(0, 10).join(", ")}`;
    return new NotOnHub("revision", error.message, hint);
  } catch {
    return error;
  }
}
