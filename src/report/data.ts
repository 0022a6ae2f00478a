// What the page of a run or of a comparison shows, read from their folders: small, whatever the run was.

import { existsSync } from "node:fs";
import { basename, join, resolve } from "node:path";
import { UserError } from "../core/errors.ts";
import { evenSubset } from "../data/windows.ts";
import type { Site } from "../evaluate/attention.ts";
import type { ArmsCompared } from "../evaluate/comparison.ts";
import { type EvaluationDetails, rounded } from "../evaluate/details.ts";
import { readLosses, readReport, type RunReport } from "../evaluate/results.ts";
import { differencesOf } from "../evaluate/statistics.ts";
import { readJson, readJsonIfSound, readLines } from "../files/json.ts";
import { isRun } from "../files/run-folder.ts";
import { runFiles } from "../files/names.ts";
import { loadRecipe, readRecipe, recipeToYaml } from "../options/load.ts";
import { sourcesOf } from "../options/schema.ts";

/** What a run keeps for its page alone. */
export interface RunDetails extends Partial<EvaluationDetails> {
  /** The mean of τ and its standard deviation over tokens, of every head. */
  readonly heads: readonly (Site & Readonly<Record<"mean" | "deviation", readonly number[]>>)[];
  /** A stretch of the held-out text with each token's τ; no run without temperatures has it. */
  readonly passage?: {
    readonly tokens: readonly string[];
    readonly temperatures: readonly (Site & { readonly taus: readonly (readonly number[])[] })[];
  };
  /** How its tokens attend: mean entropy by layer before and after, and weights as bytes of 1 / 250, a layer each, rows in order. */
  readonly attention?: Readonly<Record<"tokens" | "before" | "after", readonly string[]>> & {
    readonly entropy: readonly (readonly [before: number, after: number])[];
  };
  readonly machine: Readonly<Record<string, string>>;
}

export type RunPage = Readonly<Awaited<ReturnType<typeof readRun>>>;
export type ArmsPage = Readonly<Awaited<ReturnType<typeof pageOfArms>>>;
export type PageData = RunPage | ArmsPage;

/** More points than a screen has columns show nothing. */
const MOST_POINTS = 1000;

/** A run's folder, finished or not; the report is the one there by default. */
export async function readRun(folder: string, given?: RunReport) {
  if (!isRun(folder))
    throw new UserError(`${folder} is not the folder of a run: no ${runFiles.recipe}`, {
      hint: "name a folder that ssa finetune made, or one of ssa compare",
    });
  const report = given ?? (await readReport(folder));
  const path = join(folder, runFiles.recipe);
  const recipe = report?.recipe ?? loadRecipe({ file: await readRecipe(path) });
  const details = report && (await readJsonIfSound(join(folder, runFiles.details)));
  return {
    kind: "run" as const,
    name: basename(resolve(folder)),
    recipe,
    sources: sourcesOf(recipe).map(({ path }) => path),
    recipeText: recipeToYaml(recipe),
    command: `ssa finetune --recipe '${path.replaceAll("'", "'\\''")}' --out NEW_FOLDER`,
    report,
    details: details as RunDetails | undefined,
    changes: report && (await changesOf(folder)),
    curves: await curvesOf(folder),
  };
}

/** The change of each window's loss, nats per token. */
async function changesOf(folder: string) {
  const { before, after = [] } = (await readLosses(folder)) ?? {};
  if (!before || after.length < 2) return undefined;
  const changes = differencesOf(before, after).map((of) => rounded(of.nats / of.numTokens));
  return evenSubset(changes, 4 * MOST_POINTS);
}

/** The metrics of a run's steps, so many of them together in a point, and its evaluations. */
async function curvesOf(folder: string, mostPoints = MOST_POINTS) {
  const records = await readLines(join(folder, runFiles.metrics));
  const of = (kind: string) => records.filter((record) => record["kind"] === kind);
  const steps = of("step");
  const stepsPerPoint = Math.max(1, Math.ceil(steps.length / mostPoints));
  const points = Array.from({ length: Math.ceil(steps.length / stepsPerPoint) }, (_, i) => {
    const group = steps.slice(i * stepsPerPoint, (i + 1) * stepsPerPoint);
    const mean = (key: string) =>
      rounded(group.reduce((sum, record) => sum + Number(record[key]), 0) / group.length);
    const [loss, gradNorm, learningRate] = ["lossNats", "gradNorm", "learningRate"].map(mean);
    const step = Number(group.at(-1)!["step"]);
    return { step, loss: loss!, gradNorm: gradNorm!, learningRate: learningRate! };
  });
  const evaluations = evenSubset(of("evaluation"), MOST_POINTS).map(({ step, lossNats }) => {
    return { step: Number(step), loss: Number(lossNats) };
  });
  return { stepsPerPoint, points, evaluations };
}

/** A comparison with the losses of its runs, by their folders, which may have moved together with `within`. */
export async function pageOfArms(name: string, comparison: ArmsCompared, within = "") {
  const curves = [];
  for (const { name: arm, runs } of comparison.arms)
    for (const { folder, seed } of runs) {
      const moved = join(within, basename(folder));
      const { points } = await curvesOf(isRun(moved) ? moved : folder, MOST_POINTS / 10);
      curves.push({ arm, seed, points: points.map(({ step, loss }) => [step, loss] as const) });
    }
  return { kind: "arms" as const, name, comparison, curves };
}

/** The result that `ssa compare` left in a folder; undefined where there is none. */
export async function readComparison(folder: string): Promise<ArmsPage | undefined> {
  const path = join(folder, runFiles.comparison);
  if (!existsSync(path)) return undefined;
  const comparison = (await readJson(path)) as unknown as ArmsCompared;
  if (![comparison.arms, comparison.pairs, comparison.failed].every(Array.isArray))
    throw new UserError(`${path} is not the result of a comparison`, {
      hint: "make it again with the same ssa compare",
    });
  return pageOfArms(basename(resolve(folder)), comparison, folder);
}
