// A comparison from its recipe to its result: what `ssa compare` does, without a word. Each arm is trained with each
// seed, a run folder each; killed at any moment, all goes on as each run does.

import { existsSync } from "node:fs";
import { writeFile } from "node:fs/promises";
import { basename, join } from "node:path";
import { messageOf, UserError } from "../core/errors.ts";
import {
  type ArmsCompared,
  compareArms,
  type FailedRun,
  type ScoredRun,
} from "../evaluate/comparison.ts";
import { differingConditions, readReport } from "../evaluate/results.ts";
import { readJsonIfSound, writeJson } from "../files/json.ts";
import { isRun, runFiles } from "../files/run-folder.ts";
import { type Places, placesOf } from "../model/places.ts";
import type { Comparison } from "../options/comparison.ts";
import type { Recipe } from "../options/schema.ts";
import { writePage } from "../report/document.ts";
import { finishedReport, resolveRun, trainRun } from "./fine-tune.ts";
import { type Prepared, prepareRun } from "./prepare.ts";
import { isStop, type RunEvent } from "./training.ts";

/** A run of a comparison, with its folder as its recipe's `out`. */
export interface PlannedRun {
  readonly arm: string;
  readonly seed: number;
  readonly folder: string;
  readonly recipe: Recipe;
}

export interface CompareOptions extends Partial<Places> {
  /** Trains only every n-th run, from the i-th on; the result comes when all are there. */
  readonly shard?: { readonly index: number; readonly count: number } | undefined;
  /** Trains nothing. */
  readonly collect?: boolean;
  readonly onRun?: (run: PlannedRun, number: number, of: number) => void;
  readonly onEvent?: (event: RunEvent) => void;
}

/**
 * Trains what of a comparison is not finished, and compares it; undefined for a shard. A run that fails is told in the
 * result and leaves the others as they are. A signal that aborts stops it as it stops a run.
 */
export async function compare(
  { arms, seeds }: Pick<Comparison, "arms" | "seeds">,
  out: string,
  options: CompareOptions = {},
): Promise<{ readonly failed: readonly FailedRun[]; readonly result?: ArmsCompared }> {
  const { shard, collect = false } = options;
  if (isRun(out))
    throw new UserError(`${out} is the folder of a run, a comparison needs one of its own`);
  const runs: PlannedRun[] = [];
  for (const seed of seeds)
    for (const { name: arm, recipe: armRecipe } of arms) {
      const folder = join(out, `${arm}-seed${seed}`);
      // Where runs are collected does not matter, as long as nothing trains there.
      const { device, threads, deviceMemory, ...others } = armRecipe;
      const values = { ...others, ...(!collect && { device, threads, deviceMemory }), seed };
      runs.push({ arm, seed, folder, recipe: await resolveRun({ values }, folder, true) });
    }
  const pending: PlannedRun[] = [];
  for (const [i, run] of runs.entries())
    if (!shard || i % shard.count === shard.index - 1)
      if (!(await finishedReport(run.recipe))) pending.push(run);
  if (collect && pending.length > 0) {
    const names = pending.map(({ folder }) => basename(folder)).join(", ");
    throw new UserError(`${out}: ${pending.length} of ${runs.length} runs are missing: ${names}`, {
      hint: "train them with the same command without --collect, or take their arms or seeds out",
      exitCode: 1,
    });
  }
  const failed = await trainAll(pending, placesOf(options), options);
  if (shard) return { failed };
  const isFailed = ({ folder }: PlannedRun) => failed.some((run) => run.folder === folder);
  const scored: ScoredRun[] = [];
  for (const run of runs) if (!isFailed(run)) scored.push(await readScored(run));
  const names = arms.map(({ name }) => name);
  const result = compareArms(names, scored, failed);
  await writeJson(join(out, runFiles.comparison), result);
  const page = { kind: "arms", name: basename(out), comparison: result } as const;
  await writePage(join(out, runFiles.page), page);
  return { failed, result };
}

/** Trains runs one after another; a failure ends none but its own. */
async function trainAll(
  runs: readonly PlannedRun[],
  places: Places,
  { onRun, onEvent }: CompareOptions,
): Promise<FailedRun[]> {
  const { signal = new AbortController().signal } = places;
  await checkPlans(runs, { ...places, onNote: undefined });
  const failed: FailedRun[] = [];
  for (const [i, run] of runs.entries()) {
    const { arm, seed, folder, recipe } = run;
    signal.throwIfAborted();
    onRun?.(run, i + 1, runs.length);
    // The most memory that is counted from here on, where Linux is asked for it; elsewhere earlier runs count.
    await writeFile("/proc/self/clear_refs", "5").catch(() => undefined);
    try {
      const { outcome } = await trainRun(await prepareRun(recipe, places), {
        isResumed: existsSync(folder),
        onEvent: (event) => onEvent?.(event),
        signal,
      });
      if (outcome === "interrupted") throw signal.reason;
    } catch (error) {
      if (isStop(error, signal)) throw error;
      failed.push({ arm, seed, folder, reason: messageOf(error) });
    }
  }
  return failed;
}

/** Opens each arm before anything trains: what it asks for can be done, and is scored as the others are. */
async function checkPlans(runs: readonly PlannedRun[], places: Places): Promise<void> {
  let first: { readonly arm: string; readonly plan: Prepared["reportPlan"] } | undefined;
  const arms = new Map(runs.toReversed().map((run) => [run.arm, run]));
  for (const { arm, recipe } of [...arms.values()].toReversed()) {
    const { reportPlan: plan } = await prepareRun(recipe, places).catch((error: unknown) => {
      if (!(error instanceof UserError)) throw error;
      const { hint, exitCode, message } = error;
      throw new UserError(`arm ${arm}: ${message}`, { hint, exitCode, cause: error });
    });
    first ??= { arm, plan };
    const list = differingConditions(plan.conditions, first.plan.conditions);
    const packed = [plan, first.plan].map(({ isPacked }) => (isPacked ? "packed" : "single"));
    if (packed[0] !== packed[1]) list.push(`windows are scored ${packed.join(", not ")}`);
    if (list.length > 0)
      throw new UserError(`arm ${arm} does not compare with ${first.arm}: ${list.join("; ")}`, {
        hint: "arms are scored on the same windows in the same way (packing: documents or stream for all)",
      });
  }
}

/** Compares finished runs: those that differ in nothing but the seed are an arm, named after the first one's folder. */
export async function compareRuns(folders: readonly string[]): Promise<ArmsCompared> {
  const runs: ScoredRun[] = [];
  const recipes = new Map<string, string>();
  for (const [i, folder] of folders.entries()) {
    const { seed, out: _, ...recipe } = (await reportOf(folder)).recipe;
    const key = JSON.stringify(recipe);
    const isOf = (arm: string) =>
      recipes.get(arm) === key && !runs.some((run) => run.arm === arm && run.seed === seed);
    const short = basename(folder).replace(/-seed\d+$/, "");
    const another = recipes.has(short) ? `${folder} (${i + 1})` : short;
    const arm = [...recipes.keys()].find(isOf) ?? another;
    recipes.set(arm, key);
    runs.push(await readScored({ arm, seed, folder }));
  }
  return compareArms([...recipes.keys()], runs);
}

async function reportOf(folder: string) {
  const report = await readReport(folder);
  if (report) return report;
  throw new UserError(`${folder} is not the folder of a finished run: no sound report.json`, {
    hint: "finish it with ssa finetune --resume --out FOLDER",
  });
}

async function readScored(run: Omit<ScoredRun, "report" | "before" | "after">) {
  const { arm, seed, folder } = run;
  const report = await reportOf(folder);
  const [before, after] = await Promise.all(
    [runFiles.before, runFiles.after].map((name) => readJsonIfSound(join(folder, name))),
  );
  const isListed = (list: unknown): list is number[] =>
    Array.isArray(list) && list.length === report.after.windows;
  const [from, to, numTokens] = [before?.["nats"], after?.["nats"], after?.["numTokens"]];
  if (!isListed(from) || !isListed(to) || !isListed(numTokens))
    throw new UserError(`${folder} lacks its losses by window, before.json or after.json`, {
      hint: "runs of early versions have none after training: delete report.json, then ssa finetune --resume scores again",
    });
  const losses = (nats: readonly number[]) =>
    nats.map((nats, i) => ({ nats, numTokens: numTokens[i]! }));
  return { arm, seed, folder, report, before: losses(from), after: losses(to) };
}
