// Files and folders that are either wholly there or not at all: written beside, flushed to the disk, renamed into place.

import { createHash, randomBytes } from "node:crypto";
import { accessSync, constants, existsSync, readlinkSync } from "node:fs";
import { lstat, mkdir, open, readdir, readFile, rename, rm, stat } from "node:fs/promises";
import type { FileHandle } from "node:fs/promises";
import { hostname } from "node:os";
import { dirname, join } from "node:path";
import { kill, pid, platform } from "node:process";
import { codeOf, messageOf, orElse, UserError } from "../core/errors.ts";

/** For `catch`: throws what `writeFailure` makes of an error. */
export const failing = (path: string) => (error: unknown) => {
  throw writeFailure(path, error);
};

/** Replaces the file by `data` (strings as UTF-8); on failure the old file stays and nothing is left beside it. */
export const writeFileAtomic = (path: string, data: string | Uint8Array) =>
  replaceFile(path, (handle) => handle.writeFile(data));

/** Replaces the file by what `write` puts into the handle, with the guarantees of writeFileAtomic. */
export function replaceFile(path: string, write: (handle: FileHandle) => Promise<void>) {
  return replace(path, async (temporary) => {
    {
      await using handle = await open(temporary, "wx");
      await write(handle);
      await handle.sync();
    }
    await rename(temporary, path);
  });
}

/** Ends the name of a folder that waits for its replacement. */
export const replacedSuffix = ".replaced";

/** Replaces the folder by a new one, once `fill` has filled it; on failure the old one stays and nothing is beside it. */
export async function replaceFolder<T>(path: string, fill: (folder: string) => Promise<T>) {
  try {
    return await replace(path, async (folder) => {
      await mkdir(folder);
      const result = await fill(folder);
      await settleReplacement(path); // a killed process's
      if (existsSync(path)) await rename(path, path + replacedSuffix);
      await rename(folder, path);
      return result;
    });
  } finally {
    await settleReplacement(path);
  }
}

/** Takes away what a folder has replaced, or, where its replacement never came, puts it back. */
export async function settleReplacement(path: string): Promise<void> {
  const old = path + replacedSuffix;
  if (!existsSync(old)) return;
  if (existsSync(path)) await removeFolder(old);
  else await rename(old, path);
}

/** Renamed first, so that no half-removed folder is taken for a damaged one. */
export async function removeFolder(path: string): Promise<void> {
  const doomed = temporaryName(path);
  await rename(path, doomed);
  await rm(doomed, { recursive: true, force: true });
}

/** Has `build` make `path` under another name and rename it; where it fails, nothing is left of that. */
async function replace<T>(path: string, build: (temporary: string) => Promise<T>): Promise<T> {
  const temporary = temporaryName(path);
  await removeAbandoned(dirname(path));
  try {
    const result = await build(temporary);
    await flush(dirname(path));
    return result;
  } catch (error) {
    // The first failure is the one to tell.
    await rm(temporary, { recursive: true, force: true }).catch(() => undefined);
    throw writeFailure(path, error);
  }
}

/** The bytes of a file; undefined where there is none. */
export async function readIfPresent(path: string): Promise<Buffer | undefined> {
  await checkFile(path);
  return readFile(path).catch(absentAsUndefined);
}

/** Throws where a path leads to what is no file, such as a pipe, which a reader would wait for. */
export async function checkFile(path: string): Promise<void> {
  const info = await statIfPresent(path);
  if (info?.isFile() === false) throw new UserError(`${path} is not a file`);
}

/** Makes a folder and its parents; Node's own way tries for ever where a file system takes none, as /proc does. */
export async function makeFolder(path: string): Promise<void> {
  const make = () =>
    mkdir(path).catch(async (error: unknown) => {
      if (codeOf(error) !== "EEXIST" || !(await stat(path)).isDirectory()) throw error;
    });
  await make().catch(async (error: unknown) => {
    if (codeOf(error) !== "ENOENT" || dirname(path) === path) throw error;
    await makeFolder(dirname(path));
    await make();
  });
}

/** The state of a file, links followed; undefined where there is none. */
export const statIfPresent = (path: string) => stat(path).catch(absentAsUndefined);

/** All files below a folder, sorted, links as files; none where there is no folder. */
export async function filesBelow(folder: string): Promise<string[]> {
  const entries = await readdir(folder, { recursive: true, withFileTypes: true }).catch(() => []);
  const files = entries.filter((entry) => !entry.isDirectory());
  return files.map(({ parentPath, name }) => join(parentPath, name)).sort();
}

/** Bytes of all files below a folder, links not followed; 0 where there is none, nor of what goes in the meantime. */
export async function bytesBelow(folder: string): Promise<number> {
  const states = (await filesBelow(folder)).map((path) => lstat(path).catch(absentAsUndefined));
  return (await Promise.all(states)).reduce((sum, state) => sum + (state?.size ?? 0), 0);
}

/** For `catch`: undefined where an error says that a path leads to nothing; any other error is thrown again. */
function absentAsUndefined(error: unknown): undefined {
  if (!["ENOENT", "ENOTDIR", "ELOOP", "ENAMETOOLONG"].includes(codeOf(error) ?? "")) throw error;
}

/** A name beside `path` that says who writes there, so that a killed writer's leftovers can be told apart. */
export const temporaryName = (path: string): string =>
  `${path}.tmp-${pid}-${hostMark()}${randomBytes(4).toString("hex")}`;

const TEMPORARY = /\.tmp-(\d+)-([0-9a-f]{8})([0-9a-f]{8})?$/;

/** Whose a process id is: a disk may be that of several machines, and of containers in them that count from 1 each. */
function hostMark(): string {
  const space = orElse(() => readlinkSync("/proc/self/ns/pid"), "");
  return createHash("sha256").update(`${hostname()} ${space}`).digest("hex").slice(0, 8);
}

/** The process id in a name made by temporaryName; undefined for any other name. */
export function temporaryOwner(name: string): number | undefined {
  const [, owner] = TEMPORARY.exec(name) ?? [];
  return owner === undefined ? undefined : Number(owner);
}

/** Takes away what processes of this machine that are no more have left unfinished in a folder. */
async function removeAbandoned(folder: string): Promise<void> {
  const here = hostMark();
  for (const name of await readdir(folder).catch(() => [])) {
    const [, owner, host] = TEMPORARY.exec(name) ?? [];
    if (host !== here || isRunning(Number(owner))) continue;
    await rm(join(folder, name), { recursive: true, force: true }).catch(() => undefined);
  }
}

/** Whether a process of this machine exists. */
export function isRunning(pid: number): boolean {
  try {
    return kill(pid, 0);
  } catch (error) {
    return codeOf(error) === "EPERM"; // another user's
  }
}

/** Flushes a file, or a folder's entries: without that a rename may not outlive a power cut. */
export async function flush(path: string): Promise<void> {
  if (platform === "win32") return; // needs write access there, which folders never give
  await using handle = await open(path, "r");
  await handle.sync();
}

const space = "free some space, then try again";
const permissions = "choose another place, or change the permissions";
const circumstances: Readonly<Record<string, readonly [what: string, hint: string]>> = {
  ENOSPC: ["the disk is full", space],
  EDQUOT: ["the disk quota is used up", space],
  EFBIG: ["the file is larger than this system allows", "raise the limit, or use another disk"],
  EROFS: ["the file system is read-only", "choose another place"],
  EACCES: ["permission denied", permissions],
  EPERM: ["permission denied", permissions],
  ENOENT: ["its folder does not exist", "create the folder first"],
  ENOTDIR: ["a part of its path is a file", "choose another place"],
  EEXIST: ["a file is in its place", "choose another place"],
  EISDIR: ["it is a folder", "choose another name"],
  EIO: ["the disk reports an input/output error", "check the disk, or use another"],
};

/** Of a parent that could not be made Node says only that it is not there: the folder that refused it knows why. */
function refusalOf(path: string, error: unknown): unknown {
  let folder = dirname(path);
  while (!existsSync(folder) && folder !== dirname(folder)) folder = dirname(folder);
  try {
    if (codeOf(error) === "ENOENT") accessSync(folder, constants.W_OK);
    return error;
  } catch (refusal) {
    return refusal;
  }
}

const unchanged = "what was there before is unchanged";

class WriteError extends UserError {}

/**
 * What went wrong while writing, as a user's matter where it is one; any other error unchanged. The outermost caller
 * names what could not be written.
 */
export function writeFailure(path: string, error: unknown, more = unchanged) {
  const cause = error instanceof WriteError ? error.cause : refusalOf(path, error);
  const known = circumstances[codeOf(cause) ?? ""];
  if (!known) return error;
  const [what, hint] = known;
  return new WriteError(`cannot write ${path}: ${what} (${messageOf(cause)})`, {
    hint: `${hint}; ${more}`,
    exitCode: 1,
    cause,
  });
}
