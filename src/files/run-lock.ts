// One process at a time in a run folder.

import { hostname } from "node:os";
import { join } from "node:path";
import { UserError } from "../core/errors.ts";
import { type FileLock, tryLock } from "./file-lock.ts";

/** Every file of the lock begins with this name. */
export const lockName = "run.lock";

/** Takes the folder for this process, or throws a UserError that names the process which has it. */
export async function lockRun(runDir: string): Promise<FileLock> {
  const path = join(runDir, lockName);
  const lock = await tryLock(path);
  if ("release" in lock) return lock;
  const where = lock.host === hostname() ? "" : ` on ${lock.host}`;
  throw new UserError(`${runDir} is in use by process ${lock.pid}${where}`, {
    hint: `wait for it or stop it; if it is surely gone, delete ${path}`,
  });
}
