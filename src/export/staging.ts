// Output folders that are wholly there or not at all: built beside under a name that says so, then renamed into place.

import { existsSync } from "node:fs";
import { mkdir, readdir, readFile, realpath, rm, stat } from "node:fs/promises";
import { basename, dirname, join, relative, resolve, sep } from "node:path";
import { UserError } from "../core/errors.ts";
import { replaceFolder, settleReplacement, temporaryOwner, writeFailure } from "../files/atomic.ts";
import { modelFiles } from "../files/names.ts";
import { isRunning } from "../files/lock.ts";

/** A line of every model card that is written here: only folders with it are ever overwritten. */
export const CARD_MARK = "<!-- written by `ssa convert` -->";

export interface StagingOptions {
  /** Replaces an earlier export. */
  readonly isForced?: boolean;
  /** Folders that are read: the output must not replace them. */
  readonly sources?: readonly string[];
}

/**
 * Gives `write` an empty folder beside `out` and renames it to `out` when all is done; on failure nothing is left.
 * An output that exists is refused (exit 2), unless it is empty, or an earlier export and `isForced`.
 */
export async function stageFolder<T>(
  out: string,
  { isForced = false, sources = [] }: StagingOptions,
  write: (folder: string) => Promise<T>,
): Promise<T> {
  const target = resolve(out);
  await settleReplacement(target);
  await checkTarget(target, isForced, sources);
  await mkdir(dirname(target), { recursive: true }).catch((error: unknown) => {
    throw writeFailure(target, error);
  });
  await removeLeftovers(target);
  return replaceFolder(target, write);
}

async function checkTarget(
  target: string,
  isForced: boolean,
  sources: readonly string[],
): Promise<void> {
  if (!existsSync(target)) return;
  const real = await realpath(target);
  for (const source of sources) {
    const path = relative(real, await realpath(source));
    if (path === "" || (path !== ".." && !path.startsWith(`..${sep}`) && path !== resolve(path)))
      throw refusal(target, "holds the model that is to be converted");
  }
  if (!(await stat(target)).isDirectory())
    throw refusal(target, "is a file, a folder is to be written");
  if ((await readdir(target)).length === 0) return;
  if (!isForced)
    throw refusal(target, "exists already", ", or replace an earlier export with --force");
  const card = await readFile(join(target, modelFiles.card), "utf8").catch(() => "");
  if (!card.includes(CARD_MARK)) {
    const problem = "was not written by `ssa convert`, so --force does not remove it";
    throw refusal(target, problem, ", or remove the folder yourself");
  }
}

function refusal(target: string, problem: string, or = ""): UserError {
  return new UserError(`${target} ${problem}`, { hint: `choose another --out${or}` });
}

/** What killed conversions to the same place have left. */
async function removeLeftovers(target: string): Promise<void> {
  for (const name of await readdir(dirname(target))) {
    const owner = name.startsWith(`${basename(target)}.tmp-`) ? temporaryOwner(name) : undefined;
    if (owner !== undefined && !isRunning(owner))
      await rm(join(dirname(target), name), { recursive: true, force: true });
  }
}
