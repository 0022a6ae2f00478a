// What is measured, as report.json and the commands' JSON state it: perplexity from per-window losses, with its
// uncertainty, the paired difference of two models on the same windows, and the gate of a CI job: a result against a
// saved one, comparable or refused.

import { existsSync } from "node:fs";
import { access, constants } from "node:fs/promises";
import { dirname, join } from "node:path";
import type { Precision } from "../core/dtype.ts";
import { UserError } from "../core/errors.ts";
import { failing } from "../files/atomic.ts";
import { readJson, readJsonIfSound, writeJson } from "../files/json.ts";
import { runFiles } from "../files/names.ts";
import type { TemperatureSummary } from "./attention.ts";
import type { Quantization } from "../model/blocks.ts";
import type { PerplexityResult } from "./window-plan.ts";
import type { Recipe } from "../options/schema.ts";
import type { Cluster, Difference } from "./statistics.ts";
import { estimateDifference, mcnemar, type pairedDelta } from "./statistics.ts";

/** What every result states: a figure, and what it depends on. */
export interface TaskResult {
  readonly task: string;
  readonly perplexity?: number;
  /** Of tasks that are compared by it: 1 for each question that is answered rightly, else 0, in their order. */
  readonly outcomes?: string;
  /** Tokens that the model sees at once, at most. */
  readonly context: number;
  readonly convention?: string;
  readonly stride?: number;
  /** Which tokens of the data count; early results lack it. */
  readonly mask?: "all" | "targets";
  readonly dataSha256: string;
  /** Tokens scored. */
  readonly numTokens: number;
  readonly modelSha256: string;
  /** Where that model was computed with in blocks of integers. */
  readonly quantized?: Quantization;
}

/** What is known before the work; two results compare only where it is equal. */
export type Conditions = Omit<TaskResult, "perplexity" | "outcomes" | "modelSha256">;

export interface RunReport {
  readonly before: PerplexityResult;
  /** How the base was, of which `before`, `after` and `delta` are; `original`: without that, null where it had no room. */
  readonly quantized?: Quantization & { readonly original: PerplexityResult | null };
  /** With what was inserted, before it trained, where that is not the base from the start. */
  readonly inserted?: PerplexityResult;
  readonly after: PerplexityResult;
  readonly delta: Readonly<ReturnType<typeof pairedDelta>>;
  /** Of the base, new ones and their share of those, and all that trained, which early reports lack. */
  readonly parameters: Readonly<Record<"base" | "added" | "share", number> & { trained?: number }>;
  readonly temperatures: readonly TemperatureSummary[];
  /** Of those that the recipe names. */
  readonly tasks?: Readonly<
    Record<string, Readonly<{ before: TaskResult; after: TaskResult; change: AnswerComparison }>>
  >;
  readonly recipe: Recipe;
  /** What was learnt, with each one's share of the sequences; early reports lack it. */
  readonly sources?: readonly { readonly name: string; tokens: number; share: number }[];
  readonly device: string;
  /** What the recipe's `auto` became; early reports lack it. */
  readonly chosen?: {
    readonly batchSize: number;
    readonly gradientAccumulationSteps: number;
    readonly precision: Precision;
  };
  /** Optimizer steps done, and the one whose weights `final/` holds. */
  readonly steps: number;
  readonly finalStep: number;
  /** Training targets per second, evaluation left out. */
  readonly tokensPerSecond: number;
  readonly peakRssBytes: number;
  readonly elapsedSeconds: number;
}

/** The report in a run's folder; undefined where the run has none yet or it is damaged. */
export async function readReport(runDir: string): Promise<RunReport | undefined> {
  const json: Partial<RunReport> = (await readJsonIfSound(join(runDir, runFiles.report))) ?? {};
  return json.after && json.before && json.delta && json.recipe ? (json as RunReport) : undefined;
}

/** Losses of the report's windows in a run's folder, before and after training; undefined where it lacks some. */
export async function readLosses(runDir: string) {
  const paths = [runFiles.before, runFiles.after].map((name) => join(runDir, name));
  const [before, after] = await Promise.all(paths.map((path) => readJsonIfSound(path)));
  const lists = [before?.["nats"], after?.["nats"], after?.["numTokens"]].filter(Array.isArray);
  const [from, to, counts] = lists as number[][];
  if (!from || from.length !== to?.length || to.length !== counts?.length) return undefined;
  const losses = (of: number[]) => of.map((nats, i) => ({ nats, numTokens: counts[i]! }));
  return { before: losses(from), after: losses(to) };
}

/** Another machine or batch size rounds differently; less than this is no change. */
export const ROUNDING_PERCENT = 1e-3;

const COMPARED = [
  ...(["task", "convention", "context", "stride"] as const),
  ...(["mask", "dataSha256", "numTokens"] as const),
];

/** A saved result, which may lack what is not compared. */
export type Baseline = Conditions &
  Pick<TaskResult, "outcomes"> &
  Partial<Omit<PerplexityResult, "task">>;

/** A result from a file that `--save-baseline` wrote, or the `after` of a report.json. */
export async function readBaseline(path: string): Promise<Baseline> {
  const hint = "make one with: ssa eval ... --save-baseline FILE";
  const record = await readJson(path, hint);
  // Before there were other tasks, perplexity was not named.
  const result = { task: "perplexity", ...((record["after"] ?? record) as Partial<Baseline>) };
  const { perplexity, outcomes, lossNats = Math.log(perplexity ?? NaN) } = result;
  // One is the exponential of the other.
  const apart = Math.abs(Number(perplexity) / Math.exp(lossNats) - 1);
  const isPerplexity = [perplexity, lossNats].every(Number.isFinite) && apart < 1e-9;
  const isResult = isPerplexity || /^[01]+$/.test(outcomes ?? "");
  if (isResult && (["context", "dataSha256", "numTokens"] as const).every((key) => key in result))
    return result as Baseline;
  throw new UserError(`${path} is neither a report.json nor a saved baseline`, { hint });
}

/** Refuses a place where a baseline could not be written, or where something else lies. */
export async function checkBaselinePlace(path: string): Promise<void> {
  const folder = dirname(path);
  if (!existsSync(folder))
    throw new UserError(`there is no folder ${folder} to save the baseline in`);
  await access(folder, constants.W_OK).catch(failing(path));
  if (!existsSync(path)) return;
  const isReport = "after" in ((await readJsonIfSound(path)) ?? {});
  if (!isReport && (await readBaseline(path).catch(() => undefined))) return;
  throw new UserError(`${path} exists and is no saved baseline, so it stays as it is`, {
    hint: "name another file",
  });
}

export async function writeBaseline(path: string, result: TaskResult): Promise<void> {
  if (result.outcomes ?? Number.isFinite(result.perplexity)) return writeJson(path, result);
  throw new UserError(`a perplexity of ${result.perplexity} is no baseline: ${path} not written`, {
    hint: "is it the right model for this text?",
    exitCode: 1,
  });
}

/** Refuses, naming what differs, to compare what was measured in another way than the baseline. */
export function checkComparable(measured: Conditions, baseline: Baseline): void {
  const list = differingConditions(measured, baseline);
  if (list.length === 0) return;
  throw new UserError(`not comparable with the baseline: ${list.join("; ")}`, {
    hint: `evaluate as the baseline was${flagsOf(baseline)}, on the same data, or save a new baseline`,
  });
}

/** What of two results was measured in different ways, in words. */
export function differingConditions<Of extends Conditions>(
  measured: Of,
  other: Partial<Of>,
  keys: readonly (keyof Of & string)[] = COMPARED,
): string[] {
  const isKnown = (key: keyof Of) => key !== "mask" || other.mask !== undefined;
  const differing = keys.filter((key) => isKnown(key) && measured[key] !== other[key]);
  const shown = (value: unknown) => String(value).slice(0, 12);
  return differing.map((key) => `${key} is ${shown(measured[key])}, was ${shown(other[key])}`);
}

/** The flags of `ssa eval` that measure as a result was measured. */
function flagsOf({ task, convention = "disjoint", context, stride, ...rest }: Baseline) {
  const isPlain = convention === "disjoint" || convention === "stride";
  const flags = isPlain ? ["--context", context] : ["--convention", convention];
  if (task !== "perplexity") flags.unshift("--task", task);
  if (convention === "stride") flags.push("--stride", stride!);
  if (rest.windows !== rest.windowsTotal) flags.push("--windows", rest.windows!);
  return `: ${flags.join(" ")}`;
}

export type Comparison = Readonly<ReturnType<typeof compareWithBaseline>>;

/** Compares perplexities, where they were measured alike; `percent` is the change, of the baseline's. */
export function compareWithBaseline(result: TaskResult, baseline: Baseline, maxIncrease: number) {
  checkComparable(result, baseline);
  const { perplexity = Number.NaN } = result;
  const { perplexity: baselinePerplexity = Number.NaN } = baseline;
  const percent = 100 * (perplexity / baselinePerplexity - 1);
  const hasRegressed = !(percent <= maxIncrease + ROUNDING_PERCENT);
  return { hasRegressed, percent, maxIncreasePercent: maxIncrease, baselinePerplexity, perplexity };
}

export type AnswerComparison = Readonly<ReturnType<typeof compareAnswers>>;

/** Compares answers to the same questions: more of them lost than chance explains are a regression. */
export function compareAnswers(result: TaskResult, baseline: Baseline) {
  checkComparable(result, baseline);
  const [now = "", then = ""] = [result.outcomes, baseline.outcomes];
  const reason = "not comparable with the baseline: it has no outcomes of these questions";
  const hint = "save a new one with --save-baseline";
  if (now.length !== then.length) throw new UserError(reason, { hint });
  const acc = (outcomes: string) => outcomes.replaceAll("0", "").length / outcomes.length;
  const test = mcnemar(then, now);
  return { hasRegressed: test.verdict === "worse", acc: acc(now), baselineAcc: acc(then), ...test };
}

/** Where both models were scored on the same windows also the paired interval, and of answers, where there are any. */
export type ResultComparison =
  | (Comparison & Partial<Difference> & { readonly answers?: AnswerComparison })
  | AnswerComparison;

/** Compares by perplexity, with the differences that it is a mean of where they are known, else by answers. */
export function compareResults(
  result: TaskResult,
  baseline: Baseline,
  maxIncrease: number,
  differences?: readonly Cluster[],
): ResultComparison {
  if (result.perplexity === undefined) return compareAnswers(result, baseline);
  return {
    ...(differences && estimateDifference([differences])),
    ...compareWithBaseline(result, baseline, maxIncrease),
    ...(differences && result.outcomes && { answers: compareAnswers(result, baseline) }),
  };
}
