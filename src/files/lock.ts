// A lock that one process at a time can hold: a file, so that it says who does and needs no native code.

import { randomBytes } from "node:crypto";
import * as fs from "node:fs/promises";
import { hostname } from "node:os";
import { dirname, join } from "node:path";
import { pid as ownPid } from "node:process";
import { setTimeout as sleep } from "node:timers/promises";
import { codeOf, orElse, UserError } from "../core/errors.ts";
import {
  isRunning,
  readIfPresent,
  statIfPresent,
  temporaryName,
  writeFailure,
  makeFolder,
} from "./atomic.ts";

/** Every file of a run folder's lock begins with this name. */
export const lockName = "run.lock";

/** The start, where the system tells it, distinguishes processes that had the same id; the nonce, locks of one process. */
type Owner = Readonly<{ pid: number; host: string; started: string | null; nonce: string }>;
type Lock = Readonly<{ release: () => Promise<void> }>;

/** Takes the folder for this process, or throws a UserError that names the process which has it. */
export async function lockRun(runDir: string): Promise<Lock> {
  const path = join(runDir, lockName);
  const lock = await tryLock(path);
  if ("release" in lock) return lock;
  const where = lock.host === hostname() ? "" : ` on ${lock.host}`;
  throw new UserError(`${runDir} is in use by process ${lock.pid}${where}`, {
    hint: `wait for it or stop it; if it is surely gone, delete ${path}`,
  });
}

/** Whether a process that may be alive has the folder. */
export async function isLocked(runDir: string): Promise<boolean> {
  const owner = await ownerOf(join(runDir, lockName));
  return owner !== undefined && (await isAlive(owner));
}

/**
 * Runs `work` once no other holder of the lock does, in this process or another. Holders touch their lock: where nobody
 * did for 15 s while we watched, its owner is dead, whatever machine it names.
 */
export async function withLock<T>(path: string, work: () => Promise<T>, signal?: AbortSignal) {
  await makeFolder(dirname(path));
  let lock = await tryLock(path);
  for (let seen = "", silentMs = 0; !("release" in lock); silentMs += 100) {
    const now = `${lock.nonce} ${(await statIfPresent(path))?.mtimeMs}`;
    if (now !== seen) [seen, silentMs] = [now, 0];
    await sleep(100, undefined, signal && { signal });
    lock = await tryLock(path, silentMs >= 15_000);
  }
  const touch = () => void fs.utimes(path, new Date(), new Date()).catch(() => undefined);
  const heartbeat = setInterval(touch, 2000).unref();
  try {
    return await work();
  } finally {
    clearInterval(heartbeat);
    await lock.release();
  }
}

async function tryLock(path: string, isSilent = false): Promise<Lock | Owner> {
  const nonce = randomBytes(8).toString("hex");
  const self: Owner = { ...(await thisProcess()), nonce };
  const candidate = temporaryName(path);
  const release = async () => {
    if ((await ownerOf(path))?.nonce === nonce) await fs.rm(path, { force: true });
  };
  try {
    await fs.writeFile(candidate, JSON.stringify(self), { flag: "wx" });
    return (await acquire(candidate, path, isSilent)) ?? { release };
  } catch (error) {
    throw writeFailure(path, error);
  } finally {
    await fs.rm(candidate, { force: true });
  }
}

/**
 * Makes `path` a link to the candidate, which the file system does for one process alone. A dead owner's file may be
 * replaced only by the process that owns the file named by its nonce, itself acquired in the same way: so two that find
 * the same stale lock cannot both take it, nor can one remove the lock that the other has just taken.
 */
async function acquire(from: string, path: string, isSilent: boolean): Promise<Owner | undefined> {
  while (!(await isLinked(from, path))) {
    const owner = await ownerOf(path);
    if (owner === undefined) continue; // released in between
    if (!isSilent && (await isAlive(owner))) return owner;
    const claim = `${path}.${owner.nonce}`;
    const claimant = await acquire(from, claim, isSilent);
    if (claimant) return claimant;
    // The claim may have come after another's was fulfilled; while it is held nobody else replaces this owner.
    if ((await ownerOf(path))?.nonce === owner.nonce) return fs.rename(claim, path).then();
    await fs.rm(claim, { force: true });
  }
  return undefined;
}

/** False where `path` exists. */
function isLinked(from: string, path: string): Promise<boolean> {
  const linked = fs.link(from, path).catch((error: unknown) => {
    // File systems without hard links (exFAT, some network shares); there the content comes a moment later.
    if (!/^(EPERM|ENOTSUP|EOPNOTSUPP|ENOSYS)$/.test(codeOf(error) ?? "")) throw error;
    return fs.copyFile(from, path, fs.constants.COPYFILE_EXCL);
  });
  const refused = (error: unknown) => {
    if (codeOf(error) !== "EEXIST") throw error;
    return false;
  };
  return linked.then(() => true, refused);
}

/** Who wrote the file; undefined where there is none. A file that a power cut left torn is a dead process's. */
async function ownerOf(path: string): Promise<Owner | undefined> {
  const bytes = await readIfPresent(path);
  if (!bytes) return undefined;
  const owner = orElse(() => JSON.parse(String(bytes)) as Owner | null, null);
  if (/^\d+ [0-9a-f]{16}$/.test(`${owner?.pid} ${owner?.nonce}`)) return owner!;
  return { pid: 0, host: hostname(), started: null, nonce: "unreadable" };
}

export const thisProcess = async () => {
  return { pid: ownPid, host: hostname(), started: await startOf(ownPid) };
};

/** False where a process is surely gone; one on another machine cannot be asked from here. */
export async function isAlive({ pid, host, started }: Omit<Owner, "nonce">): Promise<boolean> {
  if (host !== hostname()) return true;
  const now = await startOf(pid);
  return pid > 0 && isRunning(pid) && (now === null || [now, null].includes(started));
}

/** Boot and clock tick at which a process started (Linux); "ended" where only its exit status is left. */
async function startOf(pid: number): Promise<string | null> {
  const read = (name: string) => fs.readFile(`/proc/${name}`, "utf8").catch(() => undefined);
  const [boot, stat] = [await read("sys/kernel/random/boot_id"), await read(`${pid}/stat`)];
  if (!boot || !stat) return null;
  // proc(5): after the name in parentheses, which may hold anything, fields 3 (state) to 22 (start time).
  const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
  return /^[ZX]/.test(fields[0]!) ? "ended" : `${boot.trim()} ${fields[19]}`;
}
