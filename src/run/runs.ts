// The runs in a folder: what each trained, what came of it and what it takes; and how they are taken away.

import { existsSync, lstatSync } from "node:fs";
import { join, relative, resolve } from "node:path";
import { UserError } from "../core/errors.ts";
import { readReport } from "../evaluate/results.ts";
import { bytesBelow, removeFolder } from "../files/atomic.ts";
import { isLocked, lockRun } from "../files/lock.ts";
import { runFiles } from "../files/names.ts";
import { isRun, runsIn, writtenAt } from "../files/run-folder.ts";
import { loadRecipe, readRecipe } from "../options/load.ts";
import { sourcesOf } from "../options/schema.ts";
import { CHECKPOINTS } from "./fine-tune.ts";

export type RunEntry = Awaited<ReturnType<typeof describeRun>>;

/** Those in a folder, also of comparisons in it, the newest first. */
export async function listRuns(folder = CHECKPOINTS): Promise<RunEntry[]> {
  if (!existsSync(folder)) {
    if (folder === CHECKPOINTS) return [];
    throw new UserError(`there is no folder "${folder}"`);
  }
  const runs: RunEntry[] = [];
  for (const run of await runsIn(folder)) runs.push(await describeRun(folder, run));
  return runs.sort((a, b) => b.when.localeCompare(a.when));
}

async function describeRun(within: string, folder: string) {
  const [report, path] = [await readReport(folder), join(folder, runFiles.recipe)];
  const read = async () => loadRecipe({ file: await readRecipe(path) });
  // A damaged recipe hides no other run.
  const recipe = report?.recipe ?? (await read().catch(() => undefined));
  const isFinished = report?.steps !== undefined && existsSync(join(folder, runFiles.final));
  return {
    name: relative(within, folder).replaceAll("\\", "/") || folder,
    folder,
    when: new Date(writtenAt(folder)).toISOString(),
    base: recipe?.base ?? null,
    data: recipe ? sourcesOf(recipe).map((source) => source.path) : [],
    tune: recipe?.tune ?? [],
    /** Perplexity, and its change in percent; null where it is not known yet. */
    before: report?.before.perplexity ?? null,
    after: report?.after.perplexity ?? null,
    percent: report?.delta.percent ?? null,
    sizeBytes: await bytesBelow(folder),
    state: (await isLocked(folder)) ? "running" : isFinished ? "finished" : "unfinished",
  } as const;
}

/** The folders that are named, as paths or under checkpoints/; refuses what is no run. */
export const findRuns = (names: readonly string[]): string[] =>
  names.map((name) => {
    const folder = [name, join(CHECKPOINTS, name)].find(isRun);
    if (folder && !lstatSync(folder).isSymbolicLink()) return resolve(folder);
    const what = folder ? "a link to a run" : "not the folder of a run";
    throw new UserError(`${name} is ${what}, so it is not deleted`, {
      hint: `ssa runs lists those under ${CHECKPOINTS}/; of a comparison they are NAME/ARM-seedN`,
    });
  });

/** Takes a run away that no process is at. */
export async function deleteRun(folder: string): Promise<void> {
  await lockRun(folder);
  await removeFolder(folder);
}
