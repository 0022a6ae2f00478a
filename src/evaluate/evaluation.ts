// Scores a model on what a task chose: windows of tokens in, a result that says all that it depends on out.

import { UserError } from "../core/errors.ts";
import type { ConventionName } from "../data/conventions.ts";
import type { DataSplit } from "../data/readers/data-files.ts";
import type { Tokens } from "../data/tokens.ts";
import type { Window } from "../data/windows.ts";
import type { Engine } from "../engines/index.ts";
import { modelSha256 } from "../files/safetensors.ts";
import type { OpenedModel } from "../model/model.ts";
import type { ReadOptions } from "../model/read-corpus.ts";
import type { Conditions, TaskResult } from "./results.ts";
import { openScorer, type ScoreOptions, type WindowLoss, type WindowScore } from "./scorer.ts";
import { TemperatureStatistics, type TemperatureSummary } from "./temperature-summary.ts";

export interface EvaluateOptions {
  /** Tokens that the model sees at once; the task says how many by default. */
  readonly context?: number | undefined;
  readonly stride?: number | undefined;
  /** Scored windows, or documents, an even fixed subset; all by default. */
  readonly windows?: number | undefined;
  readonly convention?: ConventionName | undefined;
}

/** What can be measured of a model. */
export interface Task<Result extends TaskResult = TaskResult> {
  /** Options that only some tasks have a use for. */
  readonly takes: readonly ("stride" | "convention")[];
  /** Reads the data and chooses what is scored. */
  plan(
    opened: OpenedModel,
    split: DataSplit,
    options: ReadOptions & EvaluateOptions,
  ): Promise<EvaluationPlan<Result>>;
  /** For people: lines of what it is and its value. */
  summary(result: Result): readonly (readonly [string, string | number])[];
}

export interface EvaluationPlan<Result extends TaskResult = TaskResult> {
  readonly texts: readonly Tokens[];
  /** Each group is compiled for its own number of tokens. */
  readonly groups: readonly { readonly context: number; readonly windows: readonly Window[] }[];
  /** Whether the result asks which targets are the argmax. */
  readonly needsArgmax: boolean;
  readonly conditions: Conditions;
  /** Of scores in the order of the groups. */
  resultOf(scores: readonly WindowScore[], modelSha256: string): Result;
}

/** The tokens that the model sees at once: what was asked for, within the model's length. */
export function contextOf({ model, folder }: OpenedModel, asked: number): number {
  const { maxPositions } = model.config;
  if (asked <= maxPositions && asked >= 2) return asked;
  throw new UserError(`a context of ${asked} tokens does not fit ${folder}`, {
    hint: `the model takes 2 to ${maxPositions} tokens`,
  });
}

/** A loss that is not a number says nothing, and an average hides where it came from. */
export function checkFinite(losses: readonly WindowLoss[], windows: readonly Window[]): void {
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

export interface Evaluation<Result extends TaskResult> {
  readonly result: Result;
  readonly scores: readonly WindowScore[];
  readonly temperatures: readonly TemperatureSummary[];
}

/** Scores a model as planned. */
export async function evaluate<Result extends TaskResult>(
  engine: Engine,
  opened: OpenedModel,
  { texts, groups, needsArgmax, resultOf }: EvaluationPlan<Result>,
  { batchSize, onBatch, signal }: Omit<ScoreOptions, "feeds"> & { readonly batchSize: number },
): Promise<Evaluation<Result>> {
  const sha256 = await modelSha256(opened.checkpoint);
  const observe = new TemperatureStatistics();
  const scores: WindowScore[] = [];
  let numTokens = 0;
  for (const { context, windows } of groups) {
    const scorer = await openScorer(engine, opened, { batchSize, context, observe, needsArgmax });
    const [windowsBefore, tokensBefore] = [scores.length, numTokens];
    try {
      const found = await scorer.score(texts, windows, {
        signal,
        onBatch: (done) => {
          numTokens = tokensBefore + done.numTokens;
          onBatch?.({ windows: windowsBefore + done.windows, numTokens });
        },
      });
      checkFinite(found, windows);
      for (const score of found) scores.push(score);
    } finally {
      await scorer.dispose();
    }
  }
  return { result: resultOf(scores, sha256), scores, temperatures: observe.summary() };
}
