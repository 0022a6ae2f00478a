// Output folders that are wholly there or not at all: built beside under a name that says so, then renamed into place.

import { existsSync } from "node:fs";
import { mkdir, readdir, readFile, realpath, rename, rm, stat } from "node:fs/promises";
import { basename, dirname, join, relative, resolve, sep } from "node:path";
import { UserError } from "../core/errors.ts";
import { flush, temporaryName, temporaryOwner, writeFailure } from "../formats/atomic.ts";
import { isRunning } from "../formats/run-lock.ts";

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
  await checkTarget(target, isForced, sources);
  await mkdir(dirname(target), { recursive: true }).catch((error: unknown) => {
    throw writeFailure(target, error);
  });
  await removeLeftovers(target);
  const building = temporaryName(target);
  try {
    await mkdir(building);
    const result = await write(building);
    await moveInto(building, target);
    return result;
  } catch (error) {
    await rm(building, { recursive: true, force: true }).catch(() => undefined); // the first failure is the one to tell
    throw writeFailure(target, error);
  }
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
      throw new UserError(`${target} holds the model that is to be converted`, {
        hint: "choose another --out",
      });
  }
  if (!(await stat(target)).isDirectory())
    throw new UserError(`${target} is a file, a folder is to be written`, {
      hint: "choose another --out",
    });
  if ((await readdir(target)).length === 0) return;
  if (!isForced)
    throw new UserError(`${target} exists already`, {
      hint: "choose another --out, or replace an earlier export with --force",
    });
  const card = await readFile(join(target, "README.md"), "utf8").catch(() => "");
  if (!card.includes(CARD_MARK))
    throw new UserError(
      `${target} was not written by \`ssa convert\`, so --force does not remove it`,
      {
        hint: "choose another --out, or remove the folder yourself",
      },
    );
}

/** The target is away for an instant only, and comes back if the new one cannot take its place. */
async function moveInto(building: string, target: string): Promise<void> {
  const aside = existsSync(target) ? temporaryName(target) : undefined;
  if (aside) await rename(target, aside);
  try {
    await rename(building, target);
  } catch (error) {
    if (aside) await rename(aside, target);
    throw error;
  }
  await flush(dirname(target));
  if (aside) await rm(aside, { recursive: true, force: true });
}

/** What killed conversions to the same place have left. */
async function removeLeftovers(target: string): Promise<void> {
  for (const name of await readdir(dirname(target))) {
    const owner = name.startsWith(`${basename(target)}.tmp-`) ? temporaryOwner(name) : undefined;
    if (owner !== undefined && !isRunning(owner))
      await rm(join(dirname(target), name), { recursive: true, force: true });
  }
}
