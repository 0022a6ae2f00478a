// Everything that a run needs before its first step: the augmented model, its data as tokens, windows and tensors.

import { countParameters, type OpenedModel, openModel, type OpenOptions } from "../model/open.ts";
import { UserError } from "../core/errors.ts";
import { joinForTraining } from "../data/batches.ts";
import type { DataSplit } from "../data/readers/data-files.ts";
import { countTargets, type TokenizedText } from "../data/document.ts";
import type { Recipe } from "../options/schema.ts";
import type { TrainedTensor } from "../train/adamw.ts";
import { type ModelCorpus, readCorpus, type ReadOptions } from "../model/read-corpus.ts";
import { contextOf, planWindows, type WindowPlan } from "../evaluate/evaluation.ts";
import { addedParameters, augment, trainedTensors } from "../train/groups.ts";

/** Data of a run, found and chosen. */
export interface RunData {
  readonly train: DataSplit;
  readonly evaluation: DataSplit;
  /** Joins rows of evaluation data to one text, where they are not texts of their own. */
  readonly evaluationSeparator?: string | undefined;
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
  options: Omit<ReadOptions, "separator" | "convention" | "field">,
): Promise<Prepared> {
  const opened = augment(base, recipe);
  const context = contextOf(opened, recipe.context === "auto" ? undefined : recipe.context);
  const field = recipe.textColumn;
  const train = await readCorpus(opened, data.train, { ...options, field });
  const evaluation = await readCorpus(opened, data.evaluation, {
    ...options,
    field,
    separator: data.evaluationSeparator,
  });
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
    trainSha256: train.dataSha256,
    evaluation,
    reportPlan: plan(recipe.reportWindows),
    evalPlan: plan(recipe.evalWindows),
  };
}
