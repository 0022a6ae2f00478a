// What the page of a run or of a comparison shows, read from their folders: small, whatever the run was.

import { existsSync } from "node:fs";
import { readFile } from "node:fs/promises";
import { basename, join, resolve } from "node:path";
import { UserError } from "../core/errors.ts";
import type { JsonObject } from "../core/json.ts";
import type { ArmsCompared } from "../evaluate/comparison.ts";
import type { EvaluationDetails } from "../evaluate/details.ts";
import { readReport, type RunReport } from "../evaluate/results.ts";
import type { HeadTemperatures, TokenTemperatures } from "../evaluate/attention.ts";
import { studentT975 } from "../evaluate/statistics.ts";
import { readJson, readJsonIfSound, readLines } from "../files/json.ts";
import { runFiles } from "../files/names.ts";
import { isRun } from "../files/run-folder.ts";
import { loadRecipe, recipeToYaml } from "../options/load.ts";

/** What a run keeps for its page alone. */
export interface RunDetails extends Partial<EvaluationDetails> {
  readonly heads: readonly HeadTemperatures[];
  /** A stretch of the held-out text with each token's τ; no run without temperatures has it. */
  readonly passage?: {
    readonly tokens: readonly string[];
    readonly temperatures: readonly TokenTemperatures[];
  };
  readonly machine: Readonly<Record<string, string>>;
}

export type RunPage = Readonly<Awaited<ReturnType<typeof readRun>>>;
export type ArmsPage = Readonly<Awaited<ReturnType<typeof armsPage>>>;
export type PageData = (RunPage | ArmsPage) & {
  /** Whether the page asks again for data as they come. */
  readonly isLive?: boolean;
};
export type Curves = Readonly<Awaited<ReturnType<typeof curvesOf>>>;

/** More points than a screen has columns show nothing. */
const MOST_POINTS = 1000;
const HISTOGRAM_BINS = 40;

const numberAt = (record: JsonObject, key: string) => Number(record[key] ?? Number.NaN);
const rounded = (value: number) => Number(value.toPrecision(5));
const meanOf = (values: readonly number[]) =>
  rounded(values.reduce((sum, value) => sum + value, 0) / values.length);

/** A run's folder, finished or not; the report is the one there by default. */
export async function readRun(folder: string, given?: RunReport) {
  if (!isRun(folder))
    throw new UserError(`${folder} is not the folder of a run: no ${runFiles.recipe}`, {
      hint: "name a folder that ssa finetune made, or one of ssa compare",
    });
  const report = given ?? (await readReport(folder));
  const path = join(folder, runFiles.recipe);
  const recipe =
    report?.recipe ?? loadRecipe({ file: { path, text: await readFile(path, "utf8") } });
  const [before, after, details] = await Promise.all(
    [runFiles.before, runFiles.after, runFiles.details].map((name) =>
      readJsonIfSound(join(folder, name)),
    ),
  );
  const { out: _, ...own } = recipe;
  return {
    kind: "run" as const,
    name: basename(resolve(folder)),
    folder,
    recipe,
    recipeText: recipeToYaml({ ...own, out: null }),
    report,
    /** 95 % intervals of both perplexities; null under two windows. */
    intervals: report && { before: intervalOf(report.before), after: intervalOf(report.after) },
    details: report && (details as RunDetails | undefined),
    changes: report && changesOf(before, after),
    curves: await curvesOf(folder),
  };
}

function intervalOf({ lossNats, standardError, windows }: RunReport["before"]) {
  if (standardError === null) return null;
  const margin = studentT975(windows - 1) * standardError;
  return [Math.exp(lossNats - margin), Math.exp(lossNats + margin)] as const;
}

/** How many windows changed by how much, nats per token; the first and last bin hold what lies farther out too. */
function changesOf(before: JsonObject | undefined, after: JsonObject | undefined) {
  const [from, to, counts] = [
    before?.["nats"],
    after?.["nats"],
    after?.["numTokens"],
  ] as number[][];
  if (!from || !to || !counts || from.length !== to.length || to.length < 2) return undefined;
  const changes = to.map((nats, i) => (nats - from[i]!) / counts[i]!);
  const ordered = changes.toSorted((a, b) => a - b);
  const quantile = (share: number) => ordered[Math.round(share * (ordered.length - 1))]!;
  const [low, high] = [quantile(0.005), quantile(0.995)];
  const numBins = Math.min(HISTOGRAM_BINS, Math.ceil(Math.sqrt(changes.length)) + 4);
  const width = Math.max((high - low) / numBins, 1e-9);
  const bins = Array.from({ length: numBins }, (_, i) => {
    return { from: low + i * width, to: low + (i + 1) * width, count: 0 };
  });
  for (const change of changes)
    bins[Math.min(numBins - 1, Math.max(0, Math.floor((change - low) / width)))]!.count++;
  return { bins, windows: changes.length, improved: changes.filter((change) => change < 0).length };
}

/** The metrics of a run's steps, so many of them together in a point, and its evaluations. */
async function curvesOf(folder: string) {
  const records = await readLines(join(folder, runFiles.metrics));
  const steps = records.filter(({ kind }) => kind === "step");
  const stepsPerPoint = Math.max(1, Math.ceil(steps.length / MOST_POINTS));
  const points = Array.from({ length: Math.ceil(steps.length / stepsPerPoint) }, (_, i) => {
    const group = steps.slice(i * stepsPerPoint, (i + 1) * stepsPerPoint);
    const mean = (key: string) => meanOf(group.map((record) => numberAt(record, key)));
    return {
      step: numberAt(group.at(-1)!, "step"),
      loss: mean("lossNats"),
      gradNorm: mean("gradNorm"),
      learningRate: mean("learningRate"),
    };
  });
  const evaluations = records
    .filter(({ kind }) => kind === "evaluation")
    .map((record) => ({
      step: numberAt(record, "step"),
      loss: rounded(numberAt(record, "lossNats")),
    }));
  return { stepsPerPoint, points, evaluations };
}

/** A comparison with the curves of its runs, as far as their folders are where they were, or in `folder`. */
export async function armsPage(name: string, comparison: ArmsCompared, folder?: string) {
  const runs = comparison.arms.flatMap(({ name: arm, runs }) =>
    runs.map((run) => ({ arm, seed: run.seed, at: run.folder })),
  );
  const curves = await Promise.all(
    runs.map(async ({ arm, seed, at }) => {
      const beside = folder && join(folder, basename(at));
      const { points } = await curvesOf(beside && existsSync(beside) ? beside : at);
      return { arm, seed, points: points.map(({ step, loss }) => ({ step, loss })) };
    }),
  );
  return { kind: "arms" as const, name, comparison, curves };
}

/** The result that `ssa compare` left in a folder; undefined where there is none. */
export async function readComparison(folder: string): Promise<ArmsPage | undefined> {
  const path = join(folder, runFiles.comparison);
  if (!existsSync(path)) return undefined;
  const comparison = (await readJson(path)) as Partial<ArmsCompared>;
  if (!comparison.arms || !comparison.pairs || !comparison.scored)
    throw new UserError(`${path} is not the result of a comparison`, {
      hint: "make it again with the same ssa compare",
    });
  return armsPage(basename(resolve(folder)), comparison as ArmsCompared, folder);
}
