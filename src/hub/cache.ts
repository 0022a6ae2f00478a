// Commits of repositories: what the hub says of them, and the cache, in the layout that huggingface_hub shares:
// models--org--name/{blobs/<hash>, refs/<revision>, snapshots/<commit>/<file> → blob, trees/<commit>.json, .no_exist}.

import { createHash } from "node:crypto";
import { existsSync, readFileSync } from "node:fs";
import { copyFile, rename, symlink } from "node:fs/promises";
import { basename, dirname, join, relative } from "node:path";
import { codeOf, didYouMean, messageOf, orElse, UserError } from "../core/errors.ts";
import * as atomic from "../files/atomic.ts";
import { staysInside } from "../files/safetensors.ts";
import type { HubContext, HubSettings } from "./environment.ts";
import { isCommit, nameOf, namesOf, type HubRepo } from "./repo-id.ts";
import { diskFailure, NoRevisionError, notAHub, request, retrying } from "./request.ts";

// The hub advises against more than 100,000 files in a repository: 100 pages, some 30 MB.
const MAX_PAGES = 1000;
const MAX_LISTING_BYTES = 2 ** 26;

/** What is known of one file of a commit, as a tree on disk has it; large files have their SHA-256 besides Git's hash. */
export type RepoFile = Readonly<
  { size: number; blob_id: string } & { lfs_sha256?: string; lfs_size?: number }
>;

/** What names content on the hub: SHA-256 of large files, Git's hash of others. */
export const contentHash = (isLarge: boolean, size: number) =>
  isLarge ? createHash("sha256") : createHash("sha1").update(`blob ${size}\0`);

/** All files of a commit by path. */
type Listing = ReadonlyMap<string, RepoFile>;

/** True if the hashes, which become file names, are hashes, and the size is a size. */
function isSound({ blob_id, lfs_sha256 = "0".repeat(64), size }: RepoFile): boolean {
  const text = JSON.stringify([blob_id, lfs_sha256, size]);
  return /^\["[0-9a-f]{40}","[0-9a-f]{64}",\d+\]$/.test(text);
}

/** What is cached of the commit that a revision meant when it was last asked for, under each name of the repository. */
export async function* cachedSnapshots(settings: HubSettings, repo: HubRepo) {
  if (settings.refresh && !settings.offline && !isCommit(repo.revision)) return;
  for (const id of namesOf(repo)) {
    const commit = await cachedCommit(settings, { ...repo, id });
    if (commit !== undefined) yield openSnapshot(settings, { ...repo, id }, commit);
  }
}

async function cachedCommit(settings: HubSettings, repo: HubRepo) {
  if (isCommit(repo.revision)) return repo.revision;
  const ref = await atomic.readIfPresent(join(folderOf(settings, repo), "refs", repo.revision));
  const commit = String(ref).trim();
  return isCommit(commit) ? commit : undefined;
}

const folderOf = ({ cacheDir }: HubSettings, { type, id }: HubRepo) =>
  join(cacheDir, [`${type}s`, ...id.split("/")].join("--"));

export type Snapshot = ReturnType<typeof openSnapshot>;

/** One commit in the cache. Reading makes no folder. `listing` is undefined where only the files that are here are known. */
export function openSnapshot(settings: HubSettings, repo: HubRepo, commit: string) {
  const root = folderOf(settings, repo);
  const folder = join(root, "snapshots", commit);
  const tree = join(root, "trees", `${commit}.json`);
  const listing = readTree(tree);

  /** Where a file is, or will be: inside the folder, by the rules of POSIX and of Windows. */
  function pathOf(file: string): string {
    if (staysInside(file)) return join(folder, file);
    throw new UserError(
      `the hub names a file ${JSON.stringify(file)}, which would leave its folder`,
      { hint: "do not use this repository, and tell its owner or the hub" },
    );
  }
  return {
    commit,
    folder,
    listing,
    pathOf,

    /** True if the file is there, in its full length where that is known. */
    async has(file: string): Promise<boolean> {
      const info = await atomic.statIfPresent(pathOf(file));
      return info?.isFile() === true && (listing?.get(file)?.size ?? info.size) === info.size;
    },

    /** False if it is on record that the commit has no such file. */
    expects: (file: string) =>
      listing?.has(file) ?? !existsSync(join(root, ".no_exist", commit, file)),

    /** All files where they are known, else those that are here. */
    async files(): Promise<string[]> {
      if (listing) return [...listing.keys()];
      const paths = await atomic.filesBelow(folder);
      return paths.map((path) => relative(folder, path).replaceAll("\\", "/"));
    },

    /** Records the files of the commit, and that the revision means it. */
    async remember(files: Listing): Promise<void> {
      const content = { format_version: 1, files: Object.fromEntries(files) };
      const texts = { [tree]: JSON.stringify(content, undefined, 1) };
      if (!isCommit(repo.revision)) texts[join(root, "refs", repo.revision)] = commit;
      for (const [path, text] of Object.entries(texts)) {
        await atomic.makeFolder(dirname(path));
        await atomic.writeFileAtomic(path, text);
      }
    },

    /** Where content of this hash is kept, whatever commits and names it has, and the lock of its download. */
    placesOf(hash: string) {
      // Not the lock of Python's own, which it leaves behind.
      const lock = join(root, "../.locks", basename(root), `${hash}.node.lock`);
      return { blob: join(root, "blobs", hash), lock };
    },

    /** Makes a blob appear: as a relative link, or as the file itself where links cannot be made. */
    async place(file: string, blob: string, isNewBlob: boolean): Promise<void> {
      const pointer = pathOf(file);
      const beside = atomic.temporaryName(pointer);
      await atomic.makeFolder(dirname(pointer));
      // A blob that was here before may have links to it.
      const move = () => (isNewBlob ? rename : copyFile)(blob, beside);
      const link = () => symlink(relative(dirname(pointer), blob), beside);
      await (settings.useSymlinks ? link() : move()).catch((error: unknown) => {
        if (!/^(EPERM|ENOSYS|ENOTSUP|EINVAL)$/.test(codeOf(error) ?? "")) throw error;
        return move();
      });
      await rename(beside, pointer);
    },
  };
}

// A tree that another version wrote differently is as good as none.
const readTree = (path: string): Listing | undefined =>
  orElse(() => {
    const tree = JSON.parse(readFileSync(path, "utf8")) as { format_version: 1; files: object };
    const files = new Map(Object.entries(tree.files) as [string, RepoFile][]);
    return tree.format_version === 1 && [...files.values()].every(isSound) ? files : undefined;
  }, undefined);

/** Asks the hub for the commit of a revision and for its files, and remembers both in the cache. */
export async function fetchSnapshot(context: HubContext): Promise<Snapshot> {
  const { settings, repo, signal, onNote } = context;
  try {
    const before = await cachedCommit(settings, repo);
    const commit = await commitOf(context);
    const cached = openSnapshot(settings, repo, commit);
    await cached.remember(cached.listing ?? (await filesOf(context, cached)));
    const [was, is] = [before, commit].map((hash) => hash?.slice(0, 8));
    const change = `${repo.revision} is now ${is}, the cached one was ${was}`;
    if (before && was !== is) onNote?.(`${nameOf(repo)} has changed on the hub: ${change}`);
    return openSnapshot(settings, repo, commit);
  } catch (error) {
    signal?.throwIfAborted();
    const failure = diskFailure(error, `the listing of ${nameOf(repo)}`, settings);
    if (failure instanceof UserError) throw failure;
    // Whatever else we stumble over means an answer that no hub gives.
    const isForm = failure instanceof TypeError;
    throw notAHub(context, isForm ? "its answer has another form" : messageOf(failure));
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
  let bytesLeft = MAX_LISTING_BYTES;
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
function ask(context: HubContext, path: string, maxBytes = MAX_LISTING_BYTES) {
  const { settings, repo } = context;
  const url = new URL(path, `${settings.endpoint}/api/${repo.type}s/${repo.id}/`).href;
  const read = async ({ headers }: Response, chunks: AsyncIterable<Uint8Array>) => {
    const parts = [];
    let numBytes = 0;
    for await (const part of chunks) {
      numBytes += part.length;
      if (numBytes > maxBytes)
        throw notAHub(context, `its listing has more than ${MAX_LISTING_BYTES} bytes`);
      parts.push(part);
    }
    const json: unknown = JSON.parse(String(Buffer.concat(parts)));
    const link = /<([^>]*)>; *rel="next"/.exec(headers.get("link") ?? "")?.[1];
    return { json, numBytes, url, next: link && new URL(link, url).href };
  };
  return retrying(context, () => request(context, url, read));
}
