// The folder layout that huggingface_hub shares between languages:
// models--org--name/{blobs/<hash>, refs/<revision>, snapshots/<commit>/<file> → blob, trees/<commit>.json, .no_exist}.

import { existsSync, readFileSync } from "node:fs";
import { copyFile, mkdir, readdir, rename, symlink } from "node:fs/promises";
import { basename, dirname, join, relative } from "node:path";
import { codeOf, UserError } from "../core/errors.ts";
import { readIfPresent, statIfPresent, temporaryName, writeFileAtomic } from "../files/atomic.ts";
import { staysInside } from "../files/safetensors.ts";
import type { HubSettings } from "./environment.ts";
import { isCommit, namesOf, type HubRepo } from "./repo-id.ts";

/** What is known of one file of a commit, as a tree on disk has it; large files have their SHA-256 besides Git's hash. */
export interface RepoFile {
  readonly size: number;
  readonly blob_id: string;
  readonly lfs_sha256?: string;
  readonly lfs_size?: number;
}

/** All files of a commit by path. */
export type Listing = ReadonlyMap<string, RepoFile>;

/** True if the hashes, which become file names, are hashes, and the size is a size. */
export function isSound({ blob_id, lfs_sha256 = "0".repeat(64), size }: RepoFile): boolean {
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

/** The commit that a revision meant when it was last asked for. */
export async function cachedCommit(settings: HubSettings, repo: HubRepo) {
  if (isCommit(repo.revision)) return repo.revision;
  const ref = await readIfPresent(join(folderOf(settings, repo), "refs", repo.revision));
  const commit = String(ref).trim();
  return isCommit(commit) ? commit : undefined;
}

const folderOf = ({ cacheDir }: HubSettings, { type, id }: HubRepo) =>
  join(cacheDir, [`${type}s`, ...id.split("/")].join("--"));

export type Snapshot = ReturnType<typeof openSnapshot>;

/** One commit in the cache. Reading makes no folder. `listing` is undefined where only the files that are here are known. */
export function openSnapshot(
  settings: HubSettings,
  repo: HubRepo,
  commit: string,
  given?: Listing,
) {
  const root = folderOf(settings, repo);
  const folder = join(root, "snapshots", commit);
  const tree = join(root, "trees", `${commit}.json`);
  const listing = given ?? readTree(tree);

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
      const info = await statIfPresent(pathOf(file));
      return info?.isFile() === true && (listing?.get(file)?.size ?? info.size) === info.size;
    },

    /** False if it is on record that the commit has no such file. */
    expects: (file: string) =>
      listing?.has(file) ?? !existsSync(join(root, ".no_exist", commit, file)),

    /** All files where they are known, else those that are here. */
    async files(): Promise<string[]> {
      if (listing) return [...listing.keys()];
      const options = { recursive: true, withFileTypes: true } as const;
      const entries = await readdir(folder, options).catch(() => []);
      return entries
        .filter((entry) => !entry.isDirectory())
        .map(({ parentPath, name }) => relative(folder, join(parentPath, name)))
        .map((path) => path.replaceAll("\\", "/"));
    },

    /** Records the files of the commit, and that the revision means it. */
    async remember(): Promise<void> {
      const content = { format_version: 1, files: Object.fromEntries(listing ?? []) };
      const texts = { [tree]: JSON.stringify(content, undefined, 1) };
      if (!isCommit(repo.revision)) texts[join(root, "refs", repo.revision)] = commit;
      for (const [path, text] of Object.entries(texts)) {
        await mkdir(dirname(path), { recursive: true });
        await writeFileAtomic(path, text);
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
      const beside = temporaryName(pointer);
      await mkdir(dirname(pointer), { recursive: true });
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
function readTree(path: string): Listing | undefined {
  try {
    const tree = JSON.parse(readFileSync(path, "utf8")) as { format_version: 1; files: object };
    const files = new Map(Object.entries(tree.files) as [string, RepoFile][]);
    return tree.format_version === 1 && [...files.values()].every(isSound) ? files : undefined;
  } catch {
    return undefined;
  }
}
