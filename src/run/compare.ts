// A comparison from its recipe to its result: what `ssa compare` does, without a word. Each arm is trained with each
// seed, a run folder each; killed at any moment, all goes on as each run does.

import { existsSync } from "node:fs";
import { writeFile } from "node:fs/promises";
import { basename, dirname, join } from "node:path";
import { messageOf, UserError } from "../core/errors.ts";
import { ofShard, type Shard } from "../data/windows.ts";
import { type ArmsCompared, compareArms, type NamedRun } from "../evaluate/comparison.ts";
import type { FailedRun, RateSearch, ScoredRun } from "../evaluate/comparison.ts";
import { differingConditions, readLosses, readReport } from "../evaluate/results.ts";
import { readLines, writeJson } from "../files/json.ts";
import { isRun } from "../files/run-folder.ts";
import { runFiles } from "../files/names.ts";
import { type Places, placesOf } from "../model/places.ts";
import type { Comparison } from "../options/comparison.ts";
import { partedByPlace, type Recipe } from "../options/schema.ts";
import { pageOfArms } from "../report/data.ts";
import { writePage } from "../report/document.ts";
import { finishedReport, resolveRun, trainRun } from "./fine-tune.ts";
import { type Prepared, prepareRun } from "./prepare.ts";
import { GRID, HELD_IN, ratesAt, searchRate } from "./search.ts";
import { isStop, type RunEvent } from "./work.ts";

/** A run of a comparison, with its folder as its recipe's `out`. */
export type PlannedRun = NamedRun & { readonly recipe: Recipe };

export interface CompareOptions extends Partial<Places> {
  /** Trains only every n-th run, from the i-th on; the result comes when all are there. */
  readonly shard?: Shard | undefined;
  /** Trains nothing. */
  readonly collect?: boolean;
  readonly onRun?: (run: PlannedRun, number: number, of: number) => void;
  readonly onEvent?: (event: RunEvent) => void;
}

type Work = CompareOptions & Places;

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
  const work = { ...options, ...placesOf(options) };
  const each = seeds.flatMap((seed) => arms.map((arm) => ({ arm, seed })));
  const all = ofShard(each, shard);
  const searched = arms.filter((arm) => arm.isSearched && all.some((run) => run.arm === arm));
  const { searches, reasons } = await searchRates(searched, out, work);
  const failed: FailedRun[] = [];
  const runs: PlannedRun[] = [];
  for (const { arm, seed } of all) {
    const run = { arm: arm.name, seed, folder: join(out, `${arm.name}-seed${seed}`) };
    const reason = reasons.get(arm.name);
    const rates = ratesAt(arm.recipe, searches.get(arm.name)?.chosen.halfDecades ?? 0);
    // Where runs are collected does not matter, as long as nothing trains there.
    const values = { ...(collect ? partedByPlace(arm.recipe).others : arm.recipe), ...rates, seed };
    if (reason !== undefined) failed.push({ ...run, reason });
    else runs.push({ ...run, recipe: await resolveRun({ values }, run.folder, true) });
  }
  const pending: PlannedRun[] = [];
  for (const run of runs) if (!(await finishedReport(run.recipe))) pending.push(run);
  if (collect && pending.length > 0) {
    const names = pending.map(({ folder }) => basename(folder)).join(", ");
    throw new UserError(`${out}: ${pending.length} of ${runs.length} runs are missing: ${names}`, {
      hint: "train them with the same command without --collect, or take their arms or seeds out",
      exitCode: 1,
    });
  }
  failed.push(...(await trainAll(pending, work)));
  if (shard) return { failed };
  const scored: ScoredRun[] = [];
  for (const { arm, seed, folder } of runs)
    if (!failed.some((run) => run.folder === folder))
      scored.push({ arm, seed, ...(await readScored(folder)) });
  const names = arms.map(({ name }) => name);
  const result = compareArms(names, scored, failed, searches);
  await writeJson(join(out, runFiles.comparison), result);
  await writePage(join(out, runFiles.page), await pageOfArms(basename(out), result, out));
  return { failed, result };
}

/** The learning rates of arms that want them searched, each with what was tried, or why none was found. */
async function searchRates(arms: Comparison["arms"], out: string, work: Work) {
  const { shard, collect, onRun } = work;
  const searches = new Map<string, RateSearch>();
  const reasons = new Map<string, string>();
  // Shards that share a folder do not share the runs in it.
  const where = { folder: join(out, "search"), part: shard ? `-shard${shard.index}` : "" };
  const plans = arms.map(({ name, recipe }) => ({ arm: name, recipe }));
  if (!collect && plans.some(({ arm }) => !existsSync(join(where.folder, `${arm}.json`))))
    await checkPlans(plans, work);
  for (const arm of arms) {
    const train = async (point: Recipe, number: number) => {
      const recipe = await resolveRun({ values: point }, point.out, true);
      const run = { arm: arm.name, seed: recipe.seed, folder: point.out!, recipe };
      onRun?.(run, number, Math.max(number, GRID.length));
      return (await trainOne(run, work, HELD_IN)).after.lossNats;
    };
    try {
      searches.set(arm.name, await searchRate(arm, where, collect ? undefined : train));
    } catch (error) {
      if (collect) throw error;
      reasons.set(arm.name, reasonOf(error, work));
    }
  }
  return { searches, reasons };
}

/** Trains a run in its folder, or scores it on an end of its training text; one that is stopped throws the signal's reason. */
async function trainOne({ folder, recipe }: PlannedRun, work: Work, heldIn = 0) {
  const { signal = new AbortController().signal } = work;
  // The most memory that is counted from here on, where Linux is asked for it; elsewhere earlier runs count.
  await writeFile("/proc/self/clear_refs", "5").catch(() => undefined);
  const result = await trainRun(await prepareRun(recipe, work, heldIn), {
    isResumed: existsSync(folder),
    onEvent: (event) => work.onEvent?.(event),
    signal,
    // All runs beside one another begin at one base.
    sharedBase: dirname(folder),
  });
  if (result.outcome === "interrupted") throw signal.reason;
  return result.report;
}

/** Trains runs one after another; a failure ends none but its own. */
async function trainAll(runs: readonly PlannedRun[], work: Work): Promise<FailedRun[]> {
  if (runs.length > 0) await checkPlans(runs, { ...work, onNote: undefined });
  const failed: FailedRun[] = [];
  for (const [i, run] of runs.entries()) {
    const { recipe: _, ...named } = run;
    work.signal?.throwIfAborted();
    work.onRun?.(run, i + 1, runs.length);
    await trainOne(run, work).catch((error: unknown) => {
      failed.push({ ...named, reason: reasonOf(error, work) });
    });
  }
  return failed;
}

/** Why work failed; thrown where it was stopped. */
function reasonOf(error: unknown, { signal }: Places): string {
  if (signal && isStop(error, signal)) throw error;
  return messageOf(error);
}

/** Opens each arm before anything trains: what it asks for can be done, and is scored as the others are. */
async function checkPlans(runs: readonly Pick<PlannedRun, "arm" | "recipe">[], places: Places) {
  let first: { readonly arm: string; readonly plan: Prepared["reportPlan"] } | undefined;
  const names = runs.map(({ arm }) => arm);
  for (const { arm, recipe } of runs.filter(({ arm }, i) => names.indexOf(arm) === i)) {
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

/** Compares finished runs: those that differ in nothing but the seed and where they ran are an arm, named after the first one's folder. */
export async function compareRuns(folders: readonly string[]): Promise<ArmsCompared> {
  const runs: ScoredRun[] = [];
  const recipes = new Map<string, string>();
  for (const [i, folder] of folders.entries()) {
    const run = await readScored(folder);
    const { seed, ...recipe } = partedByPlace(run.report.recipe).others;
    const key = JSON.stringify(recipe);
    const isOf = (arm: string) =>
      recipes.get(arm) === key && !runs.some((run) => run.arm === arm && run.seed === seed);
    const short = basename(folder).replace(/-seed\d+$/, "");
    const another = recipes.has(short) ? `${folder} (${i + 1})` : short;
    const arm = [...recipes.keys()].find(isOf) ?? another;
    recipes.set(arm, key);
    runs.push({ arm, seed, ...run });
  }
  return compareArms([...recipes.keys()], runs);
}

async function readScored(folder: string) {
  const report = await readReport(folder);
  if (!report)
    throw new UserError(`${folder} is not the folder of a finished run: no sound report.json`, {
      hint: "finish it with ssa finetune --resume --out FOLDER",
    });
  const losses = await readLosses(folder);
  if (losses?.after.length !== report.after.windows)
    throw new UserError(`${folder} lacks its losses by window, before.json or after.json`, {
      hint: "runs of early versions have none after training: delete report.json, then ssa finetune --resume scores again",
    });
  const metrics = await readLines(join(folder, runFiles.metrics));
  const evaluations = metrics.filter(({ kind }) => kind === "evaluation");
  const curve = new Map(evaluations.map((at) => [Number(at["step"]), Number(at["lossNats"])]));
  return { folder, report, ...losses, curve };
}
