// Everything that a run needs before its first step: the augmented model, its data as tokens, windows and tensors.

import { countParameters, type OpenedModel, openModel, type OpenOptions } from "../model/open.ts";
import { UserError } from "../core/errors.ts";
import { joinForTraining } from "../data/windows.ts";
import type { CorpusOptions } from "../data/corpus.ts";
import type { Remake } from "../data/document.ts";
import type { DataSplit } from "../data/readers/files.ts";
import { countTargets, type TokenizedText } from "../data/document.ts";
import type { Recipe } from "../options/schema.ts";
import type { TrainedTensor } from "../train/adamw.ts";
import { type ModelCorpus, readCorpus } from "../model/read-corpus.ts";
import { contextOf } from "../evaluate/evaluation.ts";
import { planWindows, type WindowPlan } from "../evaluate/tasks/perplexity.ts";
import { addedParameters, augment, trainedTensors } from "../train/groups.ts";

/** Data of a run, found and chosen. */
export interface RunData {
  readonly train: DataSplit;
  readonly evaluation: DataSplit;
  /** What rows of evaluation data become, where they are not texts of their own. */
  readonly evaluationRemake?: Remake | undefined;
}

export interface HeldOut {
  readonly asked: number;
  readonly actual: number;
}

export interface Prepared {
  /** As it was opened, and with the temperatures that train. */
  readonly base: OpenedModel;
  readonly opened: OpenedModel;
  readonly tensors: readonly TrainedTensor[];
  /** Of the base, of the temperatures, and of all that trains. */
  readonly parameters: { readonly base: number; readonly added: number; readonly trained: number };
  readonly context: number;
  /** One stream of training tokens. */
  readonly stream: TokenizedText;
  /** Shares of the data's tokens, where an end of them is held out. */
  readonly heldOut: HeldOut | null;
  /** Of the training text or token file. */
  readonly trainSha256: string;
  readonly evaluation: ModelCorpus;
  /** Windows scored for the report, and on the way. */
  readonly reportPlan: WindowPlan;
  readonly evalPlan: WindowPlan;
}

/** A recipe's base, without weights where they are to be random. */
export function openBase({ base, init }: Recipe, options: OpenOptions = {}): Promise<OpenedModel> {
  return openModel(base, { ...options, withoutWeights: init === "random" });
}

export async function prepareRun(
  recipe: Recipe,
  base: OpenedModel,
  data: RunData,
  options: CorpusOptions,
): Promise<Prepared> {
  const opened = augment(base, recipe);
  const context = contextOf(opened, recipe.context === "auto" ? undefined : recipe.context);
  const { textColumn, nullRows } = recipe;
  const how = { ...options, textColumn, nullRows };
  const train = await readCorpus(opened, data.train, how);
  const remake = data.evaluationRemake;
  const evaluation = await readCorpus(opened, data.evaluation, { ...how, remake });
  const heldOut = heldOutShare(data.evaluation, train.numTokens, evaluation.numTokens);
  const { tokenizer } = train;
  const stream = joinForTraining(train.texts, {
    vocabSize: opened.model.config.vocabSize,
    endOfText: tokenizer?.endOfText,
    prefix: tokenizer?.prefix ?? [],
  });
  if (countTargets(stream, 1) < 1)
    throw new UserError(`${data.train.description} holds too little text to train on`);
  const plan = (windows: number | "all") =>
    planWindows(opened, evaluation, {
      context,
      windows: windows === "all" ? undefined : windows,
    });
  const tensors = await trainedTensors(opened, recipe);
  return {
    base,
    opened,
    tensors,
    parameters: {
      base: countParameters(opened.model),
      added: addedParameters(opened.temperatures?.values),
      trained: tensors.reduce((sum, { values }) => sum + values.length, 0),
    },
    context,
    stream,
    heldOut,
    trainSha256: train.dataSha256,
    evaluation,
    reportPlan: plan(recipe.reportWindows),
    evalPlan: plan(recipe.evalWindows),
  };
}

/** What is far from the asked share would measure something else than was meant. */
function heldOutShare(
  { part, description }: DataSplit,
  trainTokens: number,
  evaluationTokens: number,
): HeldOut | null {
  if (part?.side !== "held-out") return null;
  const [asked, actual] = [part.share, evaluationTokens / (trainTokens + evaluationTokens)];
  if (actual >= asked / 2 && actual <= asked * 2) return { asked, actual };
  throw new UserError(
    `${description} would be ${(100 * actual).toPrecision(2)} % of its ${trainTokens + evaluationTokens} tokens`,
    { hint: "bring more data, hold out another share, or name evaluation data of its own" },
  );
}
