// Files that are either wholly there or not at all: written beside, flushed to the disk, renamed into place.

import { randomBytes } from "node:crypto";
import { open, rename, rm, type FileHandle } from "node:fs/promises";
import { dirname } from "node:path";
import { pid, platform } from "node:process";
import { messageOf, UserError } from "../core/errors.ts";

/** Replaces the file by `data` (strings as UTF-8); on failure the old file stays and nothing is left beside it. */
export async function writeFileAtomic(path: string, data: string | Uint8Array): Promise<void> {
  await replaceFile(path, (handle) => handle.writeFile(data));
}

/** Replaces the file by what `write` puts into the handle, with the guarantees of writeFileAtomic. */
export async function replaceFile(
  path: string,
  write: (handle: FileHandle) => Promise<void>,
): Promise<void> {
  const temporary = temporaryName(path);
  try {
    const handle = await open(temporary, "wx");
    try {
      await write(handle);
      await handle.sync();
    } finally {
      await handle.close();
    }
    await rename(temporary, path);
  } catch (error) {
    await rm(temporary, { force: true }).catch(() => undefined); // the first failure is the one to tell
    throw writeFailure(path, error);
  }
  await flush(dirname(path));
}

/** A name beside `path` that says who writes there, so that a killed writer's leftovers can be told apart. */
export function temporaryName(path: string): string {
  return `${path}.tmp-${pid}-${randomBytes(4).toString("hex")}`;
}

/** The process id in a name made by temporaryName; undefined for any other name. */
export function temporaryOwner(name: string): number | undefined {
  const match = /\.tmp-(\d+)-[0-9a-f]{8}$/.exec(name);
  return match ? Number(match[1]) : undefined;
}

/** Flushes a file, or a folder's entries: without that a rename may not outlive a power cut. */
export async function flush(path: string): Promise<void> {
  if (platform === "win32") return; // needs write access there, which folders never give
  const handle = await open(path, "r");
  try {
    await handle.sync();
  } finally {
    await handle.close();
  }
}

const circumstances: Readonly<Record<string, readonly [what: string, hint: string]>> = {
  ENOSPC: ["the disk is full", "free some space, then try again"],
  EDQUOT: ["the disk quota is used up", "free some space, then try again"],
  EFBIG: [
    "the file would be larger than this system allows",
    "raise the limit, or use another disk",
  ],
  EROFS: ["the file system is read-only", "choose another place"],
  EACCES: ["permission denied", "choose another place, or change the permissions"],
  EPERM: ["permission denied", "choose another place, or change the permissions"],
  ENOENT: ["its folder does not exist", "create the folder first"],
  ENOTDIR: ["a part of its path is a file", "choose another place"],
  EISDIR: ["it is a folder", "choose another name"],
  EIO: ["the disk reports an input/output error", "check the disk, or use another"],
};

/** What went wrong while writing, as a user's matter where it is one; any other error unchanged. */
export function writeFailure(path: string, error: unknown): unknown {
  const known = circumstances[(error as NodeJS.ErrnoException).code ?? ""];
  if (!known || error instanceof UserError) return error;
  const [what, hint] = known;
  return new UserError(`cannot write ${path}: ${what} (${messageOf(error)})`, {
    hint: `${hint}; what was there before is unchanged`,
    exitCode: 1,
    cause: error,
  });
}
