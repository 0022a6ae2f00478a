// The folder layout that huggingface_hub shares between languages:
// models--org--name/{blobs/<hash>, refs/<revision>, snapshots/<commit>/<file> → blob, trees/<commit>.json, .no_exist}.

import { existsSync, readFileSync } from "node:fs";
import { copyFile, mkdir, readdir, rename, symlink } from "node:fs/promises";
import { basename, dirname, join, relative } from "node:path";
import { codeOf, UserError } from "../core/errors.ts";
import { readIfPresent, statIfPresent, temporaryName, writeFileAtomic } from "../files/atomic.ts";
import { staysInside } from "../files/safetensors.ts";
import type { HubSettings } from "./environment.ts";
import { isCommit, type HubRepo } from "./repo-id.ts";

/** What is known of one file of a commit, as a tree on disk has it; large files have their SHA-256 besides Git's hash. */
export type RepoFile = Readonly<{
  size: number;
  blob_id: string;
  lfs_sha256?: string;
  lfs_size?: number;
}>;

/** Throws unless a path from the hub stays inside the folder it is put in, by the rules of POSIX and of Windows. */
export function checkInside(path: string): void {
  if (staysInside(path)) return;
  const problem = `the hub names a file ${JSON.stringify(path)}, which would leave its folder`;
  throw new UserError(problem, {
    hint: "do not use this repository, and tell its owner or the hub",
  });
}

/** True if the hashes, which become file names, are hashes, and the size is a size. */
export function isSound({ blob_id, lfs_sha256 = "0".repeat(64), size }: RepoFile): boolean {
  const text = JSON.stringify([blob_id, lfs_sha256, size]);
  return /^\["[0-9a-f]{40}","[0-9a-f]{64}",\d+\]$/.test(text);
}

/** Names a file's content: SHA-256 for large files, Git's hash for others. */
export const hashOf = (file: RepoFile): string => file.lfs_sha256 ?? file.blob_id;

/** What is cached of the commit that a revision meant when it was last asked for, under each name of the repository. */
export async function* cachedSnapshots(settings: HubSettings, repo: HubRepo) {
  if (settings.refresh && !settings.offline && !isCommit(repo.revision)) return;
  for (const id of [repo.id, ...repo.formerIds]) {
    const known = { ...repo, id };
    const commit = await cachedCommit(settings, known);
    if (commit !== undefined) yield new Snapshot(settings, known, commit);
  }
}

/** The commit that a revision meant when it was last asked for. */
export async function cachedCommit(settings: HubSettings, repo: HubRepo) {
  if (isCommit(repo.revision)) return repo.revision;
  const ref = await readIfPresent(join(repoFolder(settings, repo), "refs", repo.revision));
  const commit = String(ref).trim();
  return isCommit(commit) ? commit : undefined;
}

const repoFolder = ({ cacheDir }: HubSettings, { type, id }: HubRepo) =>
  join(cacheDir, [`${type}s`, ...id.split("/")].join("--"));

/** One commit in the cache. Reading makes no folder. */
export class Snapshot {
  readonly commit: string;
  readonly folder: string;
  /** All files of the commit by path; undefined where only the files that are here are known. */
  listing: ReadonlyMap<string, RepoFile> | undefined;
  readonly #repo: string;
  readonly #tree: string;

  constructor(settings: HubSettings, repo: HubRepo, commit: string) {
    this.commit = commit;
    this.#repo = repoFolder(settings, repo);
    this.#tree = join(this.#repo, "trees", `${commit}.json`);
    this.folder = join(this.#repo, "snapshots", commit);
    this.listing = readTree(this.#tree);
  }

  /** Where a file is, or will be. */
  pathOf(file: string): string {
    checkInside(file);
    return join(this.folder, file);
  }

  /** True if the file is there, in its full length where that is known. */
  async has(file: string): Promise<boolean> {
    const info = await statIfPresent(this.pathOf(file));
    return info?.isFile() === true && (this.listing?.get(file)?.size ?? info.size) === info.size;
  }

  /** False if it is on record that the commit has no such file. */
  expects(file: string): boolean {
    return this.listing?.has(file) ?? !existsSync(join(this.#repo, ".no_exist", this.commit, file));
  }

  /** All files where they are known, else those that are here. */
  async files(): Promise<string[]> {
    if (this.listing) return [...this.listing.keys()];
    const options = { recursive: true, withFileTypes: true } as const;
    const entries = await readdir(this.folder, options).catch(() => []);
    return entries
      .filter((entry) => !entry.isDirectory())
      .map(({ parentPath, name }) => relative(this.folder, join(parentPath, name)))
      .map((path) => path.replaceAll("\\", "/"));
  }

  /** Records the files of the commit, and that the revision means it. */
  async remember(revision: string, listing: ReadonlyMap<string, RepoFile>): Promise<void> {
    this.listing = listing;
    const tree = { format_version: 1, files: Object.fromEntries(listing) };
    const texts: Record<string, string> = { [this.#tree]: JSON.stringify(tree, undefined, 1) };
    if (!isCommit(revision)) texts[join(this.#repo, "refs", revision)] = this.commit;
    for (const [path, text] of Object.entries(texts)) {
      await mkdir(dirname(path), { recursive: true });
      await writeFileAtomic(path, text);
    }
  }

  /** Where the content of a file is kept, once whatever commits and names it has, and the lock of its download. */
  placesOf(file: RepoFile): { readonly blob: string; readonly lock: string } {
    // Not the lock of Python's own, which it leaves behind.
    const lock = `../.locks/${basename(this.#repo)}/${hashOf(file)}.node.lock`;
    return { blob: join(this.#repo, "blobs", hashOf(file)), lock: join(this.#repo, lock) };
  }

  /** Makes a blob appear: as a relative link, or as the file itself where links cannot be made. */
  async place(file: string, blob: string, useSymlinks: boolean, isNewBlob: boolean): Promise<void> {
    const pointer = this.pathOf(file);
    const beside = temporaryName(pointer);
    await mkdir(dirname(pointer), { recursive: true });
    const link = () => symlink(relative(dirname(pointer), blob), beside);
    // A blob that was here before may have links to it.
    const move = () => (isNewBlob ? rename : copyFile)(blob, beside);
    const fallBack = (error: unknown) => {
      if (!/^(EPERM|ENOSYS|ENOTSUP|EINVAL)$/.test(codeOf(error) ?? "")) throw error;
      return move();
    };
    await (useSymlinks ? link().catch(fallBack) : move());
    await rename(beside, pointer);
  }
}

// A tree that another version wrote differently is as good as none.
function readTree(path: string): Snapshot["listing"] {
  try {
    const tree = JSON.parse(readFileSync(path, "utf8")) as { format_version: 1; files: object };
    const files = new Map(Object.entries(tree.files) as [string, RepoFile][]);
    return tree.format_version === 1 && [...files.values()].every(isSound) ? files : undefined;
  } catch {
    return undefined;
  }
}
