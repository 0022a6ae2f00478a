// What the hub says of a repository: the commit that a revision means, and the files of that.

import { didYouMean, messageOf, UserError } from "../core/errors.ts";
import { cachedCommit, isSound, openSnapshot, type RepoFile, type Snapshot } from "./cache.ts";
import type { HubContext } from "./environment.ts";
import { diskFailure, notAHub, NoRevisionError } from "./failures.ts";
import { isCommit, nameOf } from "./repo-id.ts";
import { request, retrying } from "./request.ts";

// The hub advises against more than 100,000 files in a repository: 100 pages, some 30 MB.
const MAX_PAGES = 1000;
const MAX_BYTES = 2 ** 26;

/** Asks the hub for the commit of a revision and for its files, and remembers both in the cache. */
export async function fetchSnapshot(context: HubContext): Promise<Snapshot> {
  const { settings, repo, signal, onNote } = context;
  try {
    const before = await cachedCommit(settings, repo);
    const commit = await commitOf(context);
    const cached = openSnapshot(settings, repo, commit);
    const listing = cached.listing ?? (await filesOf(context, cached));
    const snapshot = openSnapshot(settings, repo, commit, listing);
    await snapshot.remember();
    if (before && before !== commit)
      onNote?.(
        `${nameOf(repo)} has changed on the hub: ${repo.revision} is now ${commit.slice(0, 8)}, the cached one was ${before.slice(0, 8)}`,
      );
    return snapshot;
  } catch (error) {
    signal?.throwIfAborted();
    const failure = diskFailure(error, `the listing of ${nameOf(repo)}`, settings);
    // Whatever else we stumble over means an answer that no hub gives.
    throw failure instanceof UserError ? failure : notAHub(context, messageOf(failure));
  }
}

async function commitOf(context: HubContext): Promise<string> {
  const { revision } = context.repo;
  if (isCommit(revision)) return revision;
  try {
    const path = `revision/${encodeURIComponent(revision)}?expand=sha`;
    const { sha } = (await ask(context, path)).json as { sha: unknown };
    if (isCommit(String(sha))) return String(sha);
    throw notAHub(context, `its commit is ${JSON.stringify(sha)}`);
  } catch (error) {
    if (!(error instanceof NoRevisionError)) throw error;
    const names = await namesIn(context).catch(() => []);
    const hint = didYouMean(revision, names) ?? `it has ${names.slice(0, 10).join(", ")}`;
    throw names.length > 0 ? new NoRevisionError(error.message, { hint }) : error;
  }
}

async function namesIn(context: HubContext): Promise<string[]> {
  const { json } = await ask(context, "refs");
  const { branches, tags } = json as Record<"branches" | "tags", { name: string }[]>;
  return [...branches, ...tags].map(({ name }) => name);
}

/** As a listing has it; `lfs` has the hash and the size of a large file. */
type TreeEntry = { type: string; path: string; oid: string; size: number; lfs?: TreeEntry };

async function filesOf(context: HubContext, { commit, pathOf }: Snapshot) {
  const listing = new Map<string, RepoFile>();
  const pages = new Set<string>();
  let bytesLeft = MAX_BYTES;
  for (let next: string | undefined = `tree/${commit}?recursive=true`; next !== undefined;) {
    const page = await ask(context, next, bytesLeft);
    for (const { type, path, size, oid, lfs } of page.json as TreeEntry[]) {
      pathOf(path); // throws where it leaves the folder
      if (type !== "file") continue;
      const large = lfs && { lfs_sha256: lfs.oid, lfs_size: lfs.size };
      const file = { size: lfs?.size ?? size, blob_id: oid, ...large };
      if (!isSound(file)) throw notAHub(context, `${path} has no size or checksum`);
      listing.set(path, file);
    }
    bytesLeft -= page.numBytes;
    pages.add(page.url);
    next = page.next;
    if (pages.size === MAX_PAGES || pages.has(next ?? ""))
      throw notAHub(context, `its listing has no end within ${pages.size} pages`);
  }
  return listing;
}

/** A short answer in full, and the address of its next page; repeated where that may help. */
function ask(context: HubContext, path: string, maxBytes = MAX_BYTES) {
  const { settings, repo } = context;
  const url = new URL(path, `${settings.endpoint}/api/${repo.type}s/${repo.id}/`).href;
  const read = async ({ headers }: Response, chunks: AsyncIterable<Uint8Array>) => {
    const parts = [];
    let numBytes = 0;
    for await (const part of chunks) {
      numBytes += part.length;
      if (numBytes > maxBytes)
        throw notAHub(context, `its listing has more than ${MAX_BYTES} bytes`);
      parts.push(part);
    }
    const json: unknown = JSON.parse(String(Buffer.concat(parts)));
    const link = /<([^>]*)>; *rel="next"/.exec(headers.get("link") ?? "")?.[1];
    return { json, numBytes, url, next: link && new URL(link, url).href };
  };
  return retrying(context, () => request(context, url, read));
}
