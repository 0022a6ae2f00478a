// What is measured, as report.json and the commands' JSON state it.

import { join } from "node:path";
import { readJsonIfSound } from "../files/json.ts";
import { runFiles } from "../files/names.ts";
import type { LossDelta, LossEstimate } from "./estimates.ts";
import type { TemperatureSummary } from "./scorer.ts";
import type { Recipe } from "../options/schema.ts";

/** What every result states: a figure, and what it depends on. */
export interface TaskResult {
  readonly task: string;
  readonly perplexity: number;
  /** Tokens that the model sees at once, at most. */
  readonly context: number;
  readonly convention?: string;
  readonly stride?: number;
  readonly dataSha256: string;
  /** Tokens scored. */
  readonly numTokens: number;
  readonly modelSha256: string;
}

/** What is known before the work; two results compare only where it is equal. */
export type Conditions = Omit<TaskResult, "perplexity" | "modelSha256">;

export interface PerplexityResult extends TaskResult, LossEstimate {
  readonly task: "perplexity";
  /** Summed nats of the text over ln 2 · UTF-8 bytes, unscored tokens at the mean; null for token files. */
  readonly bitsPerByte: number | null;
  /** exp(summed nats / words of the original text); null but for conventions that count words. */
  readonly wordPerplexity: number | null;
  /** `disjoint` (stride = context), `stride`, or a named one. */
  readonly convention: string;
  readonly stride: number;
  /** Windows scored, and of how many. */
  readonly windows: number;
  readonly windowsTotal: number;
}

export interface RunReport {
  readonly before: PerplexityResult;
  readonly after: PerplexityResult;
  readonly delta: LossDelta;
  readonly parameters: { readonly base: number; readonly added: number; readonly share: number };
  readonly temperatures: readonly TemperatureSummary[];
  readonly recipe: Recipe;
  readonly device: string;
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
