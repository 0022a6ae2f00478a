// Perplexity of a model on data: windows, scoring, and a result that says all that it depends on.

import type { OpenedModel } from "../model/open.ts";
import { UserError } from "../core/errors.ts";
import { type Convention, plainWindowRule, windowRule } from "../data/conventions.ts";
import type { Corpus } from "../data/corpus.ts";
import { evaluationWindows, type Window, type WindowRule } from "../data/windows.ts";
import type { Engine } from "../engines/index.ts";
import { estimate } from "./perplexity.ts";
import { openScorer, type ScoreOptions, type WindowLoss } from "./scorer.ts";
import type { TemperatureSummary } from "./temperature-summary.ts";
import { modelSha256 } from "../files/safetensors.ts";
import type { PerplexityResult } from "./results.ts";

/** Longest default window: longer ones cost memory that nobody asked for. */
const DEFAULT_CONTEXT = 1024;

export interface EvaluateOptions {
  /** Tokens of a window; the model's length, at most 1,024, by default. */
  readonly context?: number | undefined;
  readonly stride?: number | undefined;
  /** Scored windows, an even fixed subset; all by default. */
  readonly windows?: number | undefined;
  readonly batchSize?: number;
  readonly convention?: Convention | undefined;
}

/** Which windows are scored, of how many. */
export interface WindowPlan {
  readonly rule: WindowRule;
  readonly convention: string;
  readonly windows: readonly Window[];
  readonly total: number;
}

/** The tokens of a window: what was asked for, within the model's length. */
export function contextOf({ model, folder }: OpenedModel, asked: number | undefined): number {
  const { maxPositions } = model.config;
  if (asked === undefined) return Math.min(maxPositions, DEFAULT_CONTEXT);
  if (asked <= maxPositions && asked >= 2) return asked;
  throw new UserError(`a context of ${asked} tokens does not fit ${folder}`, {
    hint: `the model takes 2 to ${maxPositions} tokens`,
  });
}

export function planWindows(
  opened: OpenedModel,
  { texts }: Corpus,
  { context, stride, windows: limit, convention }: EvaluateOptions,
): WindowPlan {
  const length =
    convention && context === undefined
      ? opened.model.config.maxPositions
      : contextOf(opened, context);
  const named = convention && windowRule(convention, length);
  const rule = named
    ? { ...named, ...(stride !== undefined && { stride }) }
    : plainWindowRule(length, stride);
  const total = evaluationWindows(texts, rule).length;
  const windows = evaluationWindows(texts, rule, limit);
  if (windows.length === 0)
    throw new UserError("the data holds no token that can be scored", {
      hint: "a text needs at least two tokens",
    });
  const plain = rule.stride === rule.context ? "disjoint" : "stride";
  return { rule, convention: convention?.name ?? plain, windows, total };
}

/** A loss that is not a number says nothing, and an average hides where it came from. */
export function checkFinite(losses: readonly WindowLoss[], { windows }: WindowPlan): void {
  const at = losses.findIndex(({ nats }) => !Number.isFinite(nats));
  if (at < 0) return;
  const { text, start, length } = windows[at]!;
  throw new UserError(
    `the loss is ${losses[at]!.nats} on tokens ${start} to ${start + length - 1} of text ${text + 1}`,
    {
      hint: "are the model's weights intact, and its numbers within its number format?",
      exitCode: 1,
    },
  );
}

/** The result of scored windows. */
export function resultOf(
  losses: readonly WindowLoss[],
  plan: WindowPlan,
  { numTargets, utf8Bytes, numWords, dataSha256 }: Corpus,
  modelSha256: string,
): PerplexityResult {
  checkFinite(losses, plan);
  const { rule, convention, windows, total } = plan;
  const loss = estimate(losses);
  // Unscored tokens are taken at the mean.
  const textNats = loss.lossNats * numTargets;
  return {
    ...loss,
    bitsPerByte: utf8Bytes ? textNats / (Math.LN2 * utf8Bytes) : null,
    wordPerplexity: numWords ? Math.exp(textNats / numWords) : null,
    convention,
    context: rule.context,
    stride: rule.stride,
    windows: windows.length,
    windowsTotal: total,
    dataSha256,
    modelSha256,
  };
}

export interface Evaluation {
  readonly result: PerplexityResult;
  readonly losses: readonly WindowLoss[];
  readonly temperatures: readonly TemperatureSummary[];
}

/** Scores a model on a corpus. */
export async function evaluate(
  engine: Engine,
  opened: OpenedModel,
  corpus: Corpus,
  plan: WindowPlan,
  { batchSize, ...options }: Omit<ScoreOptions, "feeds"> & { readonly batchSize: number },
): Promise<Evaluation> {
  const { context } = plan.rule;
  const sha256 = await modelSha256(opened.checkpoint);
  const scorer = await openScorer(engine, opened, { batchSize, context, observe: true });
  try {
    const losses = await scorer.score(corpus.texts, plan.windows, options);
    const result = resultOf(losses, plan, corpus, sha256);
    return { result, losses, temperatures: scorer.temperatures() };
  } finally {
    await scorer.dispose();
  }
}
