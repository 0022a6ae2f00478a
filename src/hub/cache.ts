// The folder layout that huggingface_hub shares between languages:
// models--org--name/{blobs/<hash>, refs/<revision>, snapshots/<commit>/<file> → blob, trees/<commit>.json, .no_exist}.

import { randomUUID } from "node:crypto";
import { copyFile, mkdir, readdir, rename, rm, stat, symlink } from "node:fs/promises";
import { basename, dirname, join, relative } from "node:path";
import { codeOf, UserError } from "../core/errors.ts";
import { absentAsUndefined, readIfPresent, writeFileAtomic } from "../files/atomic.ts";
import { staysInside } from "../files/safetensors.ts";
import { isCommit, type HubRepo } from "./repo-id.ts";

/** What the hub says of one file of a commit. */
export interface RepoFile {
  readonly sizeBytes: number;
  /** Git's hash of the file, or of its pointer where `sha256` is known. */
  readonly gitSha1: string;
  readonly sha256: string | undefined;
}

/** All files of one commit by path. */
export type RepoListing = ReadonlyMap<string, RepoFile>;

/** Throws unless a path from the hub stays inside the folder it is put in, by the rules of POSIX and of Windows. */
export function checkInside(path: string): void {
  if (staysInside(path)) return;
  throw new UserError(
    `the hub names a file ${JSON.stringify(path)}, which would leave its folder`,
    {
      hint: "do not use this repository, and tell its owner or the hub",
    },
  );
}

/** One repository in the cache. Reading makes no folder; absent things are `undefined`. */
export class RepoCache {
  readonly cacheDir: string;
  readonly folder: string;

  constructor(cacheDir: string, type: HubRepo["type"], id: string) {
    this.cacheDir = cacheDir;
    this.folder = join(cacheDir, [`${type}s`, ...id.split("/")].join("--"));
  }

  /** The commit that a revision meant when it was last asked for. */
  async commitOf(revision: string): Promise<string | undefined> {
    if (isCommit(revision)) return revision;
    const commit = (await readIfPresent(this.#ref(revision)))?.toString().trim();
    return commit !== undefined && isCommit(commit) ? commit : undefined;
  }

  async rememberCommit(revision: string, commit: string): Promise<void> {
    if (!isCommit(revision)) await write(this.#ref(revision), commit);
  }

  snapshot(commit: string): string {
    return join(this.folder, "snapshots", commit);
  }

  /** Where a file of a commit is, or will be. */
  pathOf(commit: string, file: string): string {
    checkInside(file);
    return join(this.snapshot(commit), file);
  }

  /** True if the file is there, in its full length where that is known. */
  async has(commit: string, file: string, sizeBytes?: number): Promise<boolean> {
    const info = await statIfPresent(this.pathOf(commit, file));
    return info !== undefined && info.isFile() && (sizeBytes ?? info.size) === info.size;
  }

  /** True if it is on record that the commit has no such file. */
  async isKnownAbsent(commit: string, file: string): Promise<boolean> {
    return (await statIfPresent(join(this.folder, ".no_exist", commit, file))) !== undefined;
  }

  /** The files of a commit that are here, by path. */
  async cachedFiles(commit: string): Promise<string[]> {
    const root = this.snapshot(commit);
    const entries = await readdir(root, { recursive: true, withFileTypes: true }).catch(() => []);
    return entries
      .filter((entry) => !entry.isDirectory())
      .map((entry) => relative(root, join(entry.parentPath, entry.name)).replaceAll("\\", "/"))
      .toSorted();
  }

  async readListing(commit: string): Promise<RepoListing | undefined> {
    const bytes = await readIfPresent(this.#tree(commit));
    return bytes && parseTree(bytes.toString());
  }

  async writeListing(commit: string, listing: RepoListing): Promise<void> {
    const files = [...listing]
      .toSorted(([a], [b]) => (a < b ? -1 : 1))
      .map(([path, { sizeBytes, gitSha1, sha256 }]) => {
        const lfs = sha256 === undefined ? {} : { lfs_sha256: sha256, lfs_size: sizeBytes };
        return [path, { size: sizeBytes, blob_id: gitSha1, ...lfs }] as const;
      });
    const tree = { format_version: 1, files: Object.fromEntries(files) };
    await write(this.#tree(commit), JSON.stringify(tree, null, 1));
  }

  /** Where the content of a file is kept: once, whatever commits and names it has. */
  blob(file: RepoFile): string {
    return join(this.folder, "blobs", file.sha256 ?? file.gitSha1);
  }

  /** The lock of a blob's download, apart from the locks that Python leaves behind. */
  lock(file: RepoFile): string {
    const name = `${basename(this.blob(file))}.node.lock`;
    return join(this.cacheDir, ".locks", basename(this.folder), name);
  }

  /** Makes a blob appear in a snapshot: as a relative link, or as the file itself where links cannot be made. */
  async place(
    commit: string,
    path: string,
    file: RepoFile,
    options: { readonly useSymlinks: boolean; readonly isNewBlob: boolean },
  ): Promise<void> {
    const blob = this.blob(file);
    const pointer = this.pathOf(commit, path);
    await mkdir(dirname(pointer), { recursive: true });
    await rm(pointer, { force: true });
    if (options.useSymlinks) {
      try {
        await symlink(relative(dirname(pointer), blob), pointer);
        return;
      } catch (error) {
        const code = codeOf(error) ?? "";
        if (code === "EEXIST") return; // another process was faster
        if (!["EPERM", "ENOSYS", "ENOTSUP", "EINVAL"].includes(code)) throw error;
      }
    }
    // A blob that was here before may have links to it.
    if (options.isNewBlob) return rename(blob, pointer);
    const beside = `${pointer}.${randomUUID()}`;
    await copyFile(blob, beside);
    await rename(beside, pointer);
  }

  #ref(revision: string): string {
    return join(this.folder, "refs", revision);
  }

  #tree(commit: string): string {
    return join(this.folder, "trees", `${commit}.json`);
  }
}

/** The state of a file, links followed; undefined where there is none. */
export async function statIfPresent(
  path: string,
): Promise<Awaited<ReturnType<typeof stat>> | undefined> {
  return stat(path).catch(absentAsUndefined);
}

// A tree that another version wrote differently is as good as none.
function parseTree(text: string): RepoListing | undefined {
  try {
    const tree = JSON.parse(text) as {
      format_version: number;
      files: Record<string, { size: number; blob_id: string; lfs_sha256?: string }>;
    };
    if (tree.format_version !== 1) return undefined;
    return new Map(
      Object.entries(tree.files).map(([path, { size, blob_id, lfs_sha256 }]) => {
        checkInside(path);
        return [path, { sizeBytes: size, gitSha1: blob_id, sha256: lfs_sha256 }];
      }),
    );
  } catch (error) {
    if (error instanceof UserError) throw error;
    return undefined;
  }
}

async function write(path: string, text: string): Promise<void> {
  await mkdir(dirname(path), { recursive: true });
  await writeFileAtomic(path, text);
}
