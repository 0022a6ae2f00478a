// A lock that one process at a time can hold: a file, so that it says who does and needs no native code.

import { randomBytes } from "node:crypto";
import { constants, copyFile, link, readFile, rename, rm, writeFile } from "node:fs/promises";
import { hostname } from "node:os";
import { kill, pid as ownPid } from "node:process";
import { codeOf, messageOf, UserError } from "../core/errors.ts";
import { readIfPresent, temporaryName, writeFailure } from "./atomic.ts";

export interface FileLock {
  /** Gives the lock free; harmless when called again. */
  release(): Promise<void>;
}

/** The process that holds a lock. */
export interface LockOwner {
  readonly pid: number;
  readonly host: string;
  /** When the process started, where the system tells: a reused process id has another. */
  readonly started: string | null;
  readonly nonce: string;
}

/** Takes the lock for this process, or tells the living owner that has it. */
export async function tryLock(
  path: string,
  isOwnerAlive: (owner: LockOwner) => Promise<boolean> = isAlive,
): Promise<FileLock | LockOwner> {
  const started = (await startOf(ownPid)) ?? null;
  const nonce = randomBytes(8).toString("hex");
  const candidate = temporaryName(path);
  try {
    const owner: LockOwner = { pid: ownPid, host: hostname(), started, nonce };
    await writeFile(candidate, JSON.stringify(owner), { flag: "wx" }).catch((error: unknown) => {
      throw writeFailure(path, error);
    });
    const other = await acquire(candidate, path, isOwnerAlive);
    if (other) return other;
  } finally {
    await rm(candidate, { force: true });
  }
  return {
    release: async () => {
      if ((await readOwner(path))?.nonce === nonce) await rm(path, { force: true });
    },
  };
}

/** Whether a process of this machine exists. */
export function isRunning(pid: number): boolean {
  try {
    kill(pid, 0);
    return true;
  } catch (error) {
    return codeOf(error) === "EPERM"; // another user's
  }
}

/** False where an owner is surely gone; one on another machine cannot be asked from here. */
export async function isAlive(owner: LockOwner): Promise<boolean> {
  if (owner.host !== hostname()) return true;
  if (owner.pid <= 0 || !isRunning(owner.pid)) return false;
  const started = await startOf(owner.pid);
  return started === undefined || owner.started === null || started === owner.started;
}

/**
 * Makes `path` a link to the candidate, which the file system does for one process alone. A dead owner's file may be
 * replaced only by the process that owns the file named by its nonce, itself acquired in the same way: so two that find
 * the same stale lock cannot both take it, nor can one remove the lock that the other has just taken.
 */
async function acquire(
  candidate: string,
  path: string,
  isOwnerAlive: (owner: LockOwner) => Promise<boolean>,
): Promise<LockOwner | undefined> {
  for (;;) {
    if (await tryLink(candidate, path)) return undefined;
    const owner = await readOwner(path);
    if (owner === undefined) continue; // released in between
    if (await isOwnerAlive(owner)) return owner;
    const claim = `${path}.${owner.nonce}`;
    const claimant = await acquire(candidate, claim, isOwnerAlive);
    if (claimant) return claimant;
    // The claim may have come after another's was fulfilled; while it is held nobody else replaces this owner.
    const isStale = (await readOwner(path))?.nonce === owner.nonce;
    await (isStale ? rename(claim, path) : rm(claim, { force: true }));
    if (isStale) return undefined;
  }
}

// What file systems without hard links (exFAT, some network shares) answer; there the content comes a moment later.
const linklessCodes = ["EPERM", "ENOTSUP", "EOPNOTSUPP", "ENOSYS"];

async function tryLink(from: string, to: string): Promise<boolean> {
  try {
    await link(from, to).catch((error: unknown) => {
      if (!linklessCodes.includes(codeOf(error) ?? "")) throw error;
      return copyFile(from, to, constants.COPYFILE_EXCL);
    });
    return true;
  } catch (error) {
    if (codeOf(error) === "EEXIST") return false;
    throw new UserError(`cannot lock ${to}: ${messageOf(error)}`, { exitCode: 1, cause: error });
  }
}

/** Who wrote the file; undefined where there is none. A file that a power cut left empty is a dead process's. */
async function readOwner(path: string): Promise<LockOwner | undefined> {
  const bytes = await readIfPresent(path);
  if (!bytes) return undefined;
  try {
    const owner = JSON.parse(bytes.toString()) as LockOwner;
    const isWhole = typeof owner.pid === "number" && typeof owner.host === "string";
    if (isWhole && /^[0-9a-f]{16}$/.test(owner.nonce)) return owner;
  } catch {
    // torn
  }
  return { pid: 0, host: hostname(), started: null, nonce: "unreadable" };
}

/** Boot and clock tick at which a process started (Linux); "ended" where only its exit status is left. */
async function startOf(pid: number): Promise<string | undefined> {
  try {
    const boot = await readFile("/proc/sys/kernel/random/boot_id", "utf8");
    const stat = await readFile(`/proc/${pid}/stat`, "utf8");
    // proc(5): after the name in parentheses, which may hold anything, fields 3 (state) to 22 (start time).
    const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
    return fields[0] === "Z" || fields[0] === "X" ? "ended" : `${boot.trim()} ${fields[19]}`;
  } catch {
    return undefined;
  }
}
