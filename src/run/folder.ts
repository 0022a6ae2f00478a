// What a run folder tells before its run is opened: whether it is free for a new run, or holds a finished one.

import { existsSync } from "node:fs";
import { readdir, stat } from "node:fs/promises";
import { join } from "node:path";
import { UserError } from "../core/errors.ts";
import { runFiles } from "../files/names.ts";
import { lockName } from "../files/lock.ts";
import { readReport, type RunReport } from "../evaluate/results.ts";

/** Refuses a folder that a new run cannot have. */
export async function refuseUsed(runDir: string): Promise<void> {
  if (existsSync(runDir) && !(await stat(runDir)).isDirectory())
    throw new UserError(`${runDir} is a file, a folder is needed for the run`);
  const names = existsSync(runDir) ? await readdir(runDir) : [];
  if (names.some((name) => !name.startsWith(lockName)))
    throw new UserError(`${runDir} exists and is not empty`, {
      hint: "continue it with --resume, or name another --out",
    });
}

/** The report of a run that has finished its steps; undefined for any other, and where the report is damaged. */
export async function finishedReport(
  runDir: string,
  steps: number,
): Promise<RunReport | undefined> {
  if (!existsSync(join(runDir, runFiles.final))) return undefined;
  const report = await readReport(runDir);
  return report && report.recipe.steps >= steps ? report : undefined;
}
