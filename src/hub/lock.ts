// Keeps two processes from downloading the same blob.

import { mkdir, stat, utimes } from "node:fs/promises";
import { dirname } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { absentAsUndefined } from "../files/atomic.ts";
import { type FileLock, isAlive, tryLock } from "../files/file-lock.ts";

const POLL_MS = 100;
const HEARTBEAT_MS = 2000;
/** A lock whose time has not changed for so long while we watched has no living owner, whatever machine it names. */
const SILENCE_MS = 15_000;

/** Runs `work` while no other holder of the lock does, in this process or another. */
export async function withLock<T>(
  path: string,
  work: () => Promise<T>,
  signal?: AbortSignal,
): Promise<T> {
  await mkdir(dirname(path), { recursive: true });
  const lock = await waitForLock(path, signal);
  const touch = () => utimes(path, new Date(), new Date()).catch(() => undefined);
  const heartbeat = setInterval(() => void touch(), HEARTBEAT_MS).unref();
  try {
    return await work();
  } finally {
    clearInterval(heartbeat);
    await lock.release();
  }
}

/** Waits, unless stopped: then throws the reason of the stop. */
export async function pause(milliseconds: number, signal?: AbortSignal): Promise<void> {
  await sleep(milliseconds, undefined, signal && { signal }).catch(() => signal?.throwIfAborted());
}

async function waitForLock(path: string, signal: AbortSignal | undefined): Promise<FileLock> {
  let seen = "";
  for (let silentMs = 0; ; silentMs += POLL_MS) {
    signal?.throwIfAborted();
    const isSilent = silentMs >= SILENCE_MS;
    const lock = await tryLock(path, async (owner) => !isSilent && isAlive(owner));
    if ("release" in lock) return lock;
    const touched = await stat(path).catch(absentAsUndefined);
    const now = `${lock.nonce} ${touched?.mtimeMs}`;
    if (now !== seen) silentMs = 0;
    seen = now;
    await pause(POLL_MS, signal);
  }
}
