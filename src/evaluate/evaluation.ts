// Scores a model on what a task chose: windows of tokens in, a result that says all that it depends on out.

import { NotFiniteError } from "../core/errors.ts";
import type { CorpusOptions } from "../data/corpus.ts";
import type { DataSplit } from "../data/readers/files.ts";
import type { TokenizedText } from "../data/document.ts";
import type { BatchShape, ConventionName, Window } from "../data/windows.ts";
import type { Engine } from "../engines/index.ts";
import { modelSha256 } from "../files/safetensors.ts";
import type { OpenedModel } from "../model/opened.ts";
import type { Conditions, TaskResult } from "./results.ts";
import { AttentionStatistics } from "./attention.ts";
import { openScorer, type ScoreOptions, type ScorerOptions } from "./scorer.ts";
import type { Losses, WindowLoss } from "./scorer.ts";

export interface EvaluateOptions {
  /** Tokens that the model sees at once; the task says how many by default. */
  readonly context?: number | undefined;
  readonly stride?: number | undefined;
  /** Scored windows, or documents, an even fixed subset; all by default. */
  readonly windows?: number | undefined;
  readonly convention?: ConventionName | undefined;
  /** What passkey asks: tokens of its documents, percents of depth, and how often at each of both. */
  readonly passkey?: PasskeyOptions | undefined;
  /** Whether short windows may share a row, which changes nothing but the time (default: they may). */
  readonly mayPack?: boolean;
}

type PasskeyOptions = { readonly [key in "lengths" | "depths"]?: readonly number[] | undefined } & {
  readonly [key in "trials" | "seed"]?: number | undefined;
};

type PlanOptions = CorpusOptions & EvaluateOptions;

/** What can be measured of a model. */
export interface Task<Result extends TaskResult = TaskResult> {
  /** What it measures on where no data is named, with the split that counts; null: it makes its texts itself. */
  readonly data?: string | null;
  plan(opened: OpenedModel, split: DataSplit, how: PlanOptions): Promise<EvaluationPlan<Result>>;
  /** For people: lines of what it is and its value. */
  summary(result: Result): readonly (readonly [string, string | number])[];
}

export interface EvaluationPlan<Result extends TaskResult = TaskResult> {
  readonly texts: readonly TokenizedText[];
  /** Each group is compiled for its own number of tokens. */
  readonly groups: readonly ({ windows: readonly Window[] } & Omit<BatchShape, "batchSize">)[];
  /** Whether the result asks which targets are the argmax. */
  readonly needsArgmax: boolean;
  /** What the result's perplexity is a mean over, where it has one. */
  readonly perplexityOf?: "tokens" | "documents" | undefined;
  readonly conditions: Conditions;
  /** Of losses in the order of the groups. */
  resultOf(losses: Losses, modelSha256: string): Result;
}

/** Of which each one's temperatures are kept. */
const PASSAGE_TOKENS = 96;

/** A loss that is not a number says nothing, and an average hides where it came from. */
export function checkFinite(losses: Losses, windows: readonly Window[]): void {
  const at = losses.findIndex(({ nats }) => !Number.isFinite(nats));
  if (at < 0) return;
  const { text, start, length } = windows[at]!;
  const place = `tokens ${start} to ${start + length - 1} of text ${text + 1}`;
  throw new NotFiniteError(`the loss is ${losses[at]!.nats} on ${place}`, {
    hint: "are the model's weights intact, and its numbers within its number format?",
    exitCode: 1,
  });
}

type HowToScore = Omit<ScoreOptions, "done"> & Pick<ScorerOptions, "batchSize" | "trainable">;

/** Scores a plan of windows: what `planWindows` or a task chose. */
export async function evaluatePlan<Result extends TaskResult>(
  engine: Engine,
  opened: OpenedModel,
  plan: EvaluationPlan<Result>,
  how: HowToScore,
) {
  const { losses, observed } = await scorePlan(engine, opened, plan, how);
  const result = await resultOf(opened, plan, losses);
  return { result, losses, temperatures: observed.summary(), observed };
}

/** What the losses of a plan's windows amount to. */
export async function resultOf<Result extends TaskResult>(
  { checkpoint, quantized }: OpenedModel,
  plan: EvaluationPlan<Result>,
  losses: Losses,
) {
  const sha256 = checkpoint.files.length > 0 ? await modelSha256(checkpoint) : "random";
  return { ...plan.resultOf(losses, sha256), ...(quantized && { quantized: quantized.spec }) };
}

/** Losses of a plan's windows, in the order of the groups, and what attention did there. */
export async function scorePlan(
  engine: Engine,
  opened: OpenedModel,
  { texts, groups, needsArgmax }: EvaluationPlan,
  { batchSize, trainable, ...options }: HowToScore,
) {
  const observed = new AttentionStatistics(PASSAGE_TOKENS);
  const losses: WindowLoss[] = [];
  const done = { windows: 0, numTokens: 0 };
  for (const { windows, ...shape } of groups) {
    // In a batch that no window needs whole, the rest would be computed for nothing.
    const rows = Math.max(1, Math.min(batchSize, windows.length));
    const how = { ...shape, batchSize: rows, trainable, observe: observed, needsArgmax };
    await using scorer = await openScorer(engine, opened, how);
    const found = await scorer.score(texts, windows, { ...options, done });
    checkFinite(found, windows);
    for (const loss of found) losses.push(loss);
  }
  return { losses, observed };
}
