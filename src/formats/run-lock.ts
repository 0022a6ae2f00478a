// One process at a time in a run folder. The lock is a file, so that it says who holds it and needs no native code.

import { randomBytes } from "node:crypto";
import { constants, copyFile, link, readFile, rename, rm, writeFile } from "node:fs/promises";
import { hostname } from "node:os";
import { join } from "node:path";
import { kill, pid as ownPid } from "node:process";
import { messageOf, UserError } from "../core/errors.ts";
import { temporaryName, writeFailure } from "./atomic.ts";

/** Every file of the lock begins with this name. */
export const lockName = "run.lock";

export interface RunLock {
  /** Gives the folder free; harmless when called again. */
  release(): Promise<void>;
}

interface Owner {
  readonly pid: number;
  readonly host: string;
  /** When the process started, where the system tells: a reused process id has another. */
  readonly started: string | null;
  readonly nonce: string;
}

/** Takes the folder for this process, or throws a UserError that names the process which has it. */
export async function lockRun(runDir: string): Promise<RunLock> {
  const path = join(runDir, lockName);
  const started = await startOf(ownPid);
  const owner: Owner = {
    pid: ownPid,
    host: hostname(),
    started: started ?? null,
    nonce: randomBytes(8).toString("hex"),
  };
  const candidate = temporaryName(path);
  try {
    await writeFile(candidate, JSON.stringify(owner), { flag: "wx" }).catch((error: unknown) => {
      throw writeFailure(path, error);
    });
    await acquire(candidate, path, runDir);
  } finally {
    await rm(candidate, { force: true });
  }
  return {
    release: async () => {
      if ((await readOwner(path))?.nonce === owner.nonce) await rm(path, { force: true });
    },
  };
}

/** Whether a process of this machine exists. */
export function isRunning(pid: number): boolean {
  try {
    kill(pid, 0);
    return true;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === "EPERM"; // another user's
  }
}

/**
 * Makes `path` a link to the candidate, which the file system does for one process alone. A dead owner's file may be
 * replaced only by the process that owns the file named by its nonce, itself acquired in the same way: so two that find
 * the same stale lock cannot both take it, nor can one remove the lock that the other has just taken.
 */
async function acquire(candidate: string, path: string, runDir: string): Promise<void> {
  for (;;) {
    if (await tryLink(candidate, path)) return;
    const owner = await readOwner(path);
    if (owner === undefined) continue; // released in between
    if (await isAlive(owner)) throw inUse(runDir, owner);
    const claim = join(runDir, `${lockName}.${owner.nonce}`);
    await acquire(candidate, claim, runDir);
    // The claim may have come after another's was fulfilled; while it is held nobody else replaces this owner.
    if ((await readOwner(path))?.nonce === owner.nonce) return rename(claim, path);
    await rm(claim, { force: true });
  }
}

// What file systems without hard links (exFAT, some network shares) answer; there the content comes a moment later.
const linklessCodes: ReadonlySet<string | undefined> = new Set([
  "EPERM",
  "ENOTSUP",
  "EOPNOTSUPP",
  "ENOSYS",
]);

async function tryLink(from: string, to: string): Promise<boolean> {
  try {
    await link(from, to).catch((error: NodeJS.ErrnoException) => {
      if (!linklessCodes.has(error.code)) throw error;
      return copyFile(from, to, constants.COPYFILE_EXCL);
    });
    return true;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "EEXIST") return false;
    throw new UserError(`cannot lock ${to}: ${messageOf(error)}`, { exitCode: 1, cause: error });
  }
}

/** Who wrote the file; undefined where there is none. A file that a power cut left empty is a dead process's. */
async function readOwner(path: string): Promise<Owner | undefined> {
  let text: string;
  try {
    text = await readFile(path, "utf8");
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOENT") return undefined;
    throw error;
  }
  const owner = parseOwner(text);
  return owner ?? { pid: 0, host: hostname(), started: null, nonce: "unreadable" };
}

function parseOwner(text: string): Owner | undefined {
  try {
    const owner = JSON.parse(text) as Owner;
    const isWhole = typeof owner.pid === "number" && typeof owner.host === "string";
    return isWhole && /^[0-9a-f]{16}$/.test(owner.nonce) ? owner : undefined;
  } catch {
    return undefined;
  }
}

async function isAlive(owner: Owner): Promise<boolean> {
  if (owner.host !== hostname()) return true; // cannot be asked from here
  if (owner.pid <= 0 || !isRunning(owner.pid)) return false;
  const started = await startOf(owner.pid);
  return started === undefined || owner.started === null || started === owner.started;
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

function inUse(runDir: string, { pid, host }: Owner): UserError {
  const where = host === hostname() ? "" : ` on ${host}`;
  return new UserError(`${runDir} is in use by process ${pid}${where}`, {
    hint: `wait for it or stop it; if it is surely gone, delete ${join(runDir, lockName)}`,
  });
}
