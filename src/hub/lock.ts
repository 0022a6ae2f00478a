// A lock file that keeps two processes from downloading the same blob; one left by a dead process is taken over.

import { randomUUID } from "node:crypto";
import { link, mkdir, open, readFile, rename, rm, stat, utimes } from "node:fs/promises";
import { hostname } from "node:os";
import { dirname } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { codeOf } from "./cache.ts";

const POLL_MS = 100;
const HEARTBEAT_MS = 2000;
/** A lock whose time has not changed for so long while we watched has no living owner. */
const SILENCE_MS = 15_000;

/** Runs `work` while no other holder of the lock does, in this process or another. */
export async function withLock<T>(
  path: string,
  work: () => Promise<T>,
  signal?: AbortSignal,
): Promise<T> {
  await acquire(path, signal);
  const heartbeat = setInterval(() => void touch(path), HEARTBEAT_MS).unref();
  try {
    return await work();
  } finally {
    clearInterval(heartbeat);
    await rm(path, { force: true });
  }
}

/** Waits, unless stopped: then throws the reason of the stop. */
export async function pause(milliseconds: number, signal?: AbortSignal): Promise<void> {
  await sleep(milliseconds, undefined, signal && { signal }).catch(() => signal?.throwIfAborted());
}

async function acquire(path: string, signal: AbortSignal | undefined): Promise<void> {
  await mkdir(dirname(path), { recursive: true });
  let seen: { owner: string; touchedMs: number } | undefined;
  for (let silentMs = 0; ; silentMs += POLL_MS) {
    signal?.throwIfAborted();
    if (await create(path)) return;
    const now = await look(path);
    if (now === undefined) continue;
    if (seen?.owner !== now.owner || seen.touchedMs !== now.touchedMs) silentMs = 0;
    seen = now;
    if (silentMs >= SILENCE_MS || isDead(now.owner)) await bury(path, now.owner);
    else await pause(POLL_MS, signal);
  }
}

async function create(path: string): Promise<boolean> {
  try {
    const handle = await open(path, "wx");
    await handle.writeFile(`${hostname()} ${process.pid} ${randomUUID()}`);
    await handle.close();
    return true;
  } catch (error) {
    if (codeOf(error) === "EEXIST") return false;
    throw error;
  }
}

async function look(path: string): Promise<{ owner: string; touchedMs: number } | undefined> {
  try {
    return { owner: await readFile(path, "utf8"), touchedMs: (await stat(path)).mtimeMs };
  } catch (error) {
    if (codeOf(error) === "ENOENT") return undefined;
    throw error;
  }
}

function isDead(owner: string): boolean {
  const [host, pid] = owner.split(" ");
  if (host !== hostname()) return false;
  try {
    process.kill(Number(pid), 0);
    return false;
  } catch (error) {
    return codeOf(error) === "ESRCH";
  }
}

// Moved away before it is judged: between our look and now, another process may have made it its own.
async function bury(path: string, owner: string): Promise<void> {
  const grave = `${path}.${randomUUID()}`;
  try {
    await rename(path, grave);
    if ((await readFile(grave, "utf8")) !== owner) await link(grave, path);
    await rm(grave);
  } catch (error) {
    if (codeOf(error) !== "ENOENT" && codeOf(error) !== "EEXIST") throw error;
  }
}

async function touch(path: string): Promise<void> {
  const now = new Date();
  await utimes(path, now, now).catch(() => undefined);
}
