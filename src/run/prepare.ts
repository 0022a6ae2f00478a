// Everything that a run needs before its first step: the augmented model, its data as tokens, windows and tensors.

import { UserError } from "../core/errors.ts";
import { countTargets, type Remake, type TokenizedText } from "../data/document.ts";
import { type DataSplit, selectSplit } from "../data/readers/files.ts";
import type { Tokenizer } from "../data/tokenizer/tokenizer.ts";
import { joinForTraining } from "../data/windows.ts";
import { contextOf } from "../evaluate/evaluation.ts";
import { planWindows } from "../evaluate/tasks/perplexity.ts";
import { countParameters, openModel, type OpenOptions } from "../model/open.ts";
import {
  checkNames,
  findData,
  opening,
  type Places,
  readCorpus,
  reading,
} from "../model/places.ts";
import type { Recipe } from "../options/schema.ts";
import { rowsOf } from "../options/rows.ts";
import { addedParameters, augment, trainedTensors } from "../train/groups.ts";

export type Prepared = Awaited<ReturnType<typeof prepareRun>>;

/** A recipe's base, without weights where they are to be random. */
export const openBase = ({ base, init }: Recipe, options: OpenOptions = {}) =>
  openModel(base, { ...options, withoutWeights: init === "random" });

/** Opens and reads what a recipe names. */
export async function prepareRun(recipe: Recipe, places: Places) {
  // A mistyped name is told before another one is fetched.
  await checkNames(recipe.base, recipe.data, recipe.evalData);
  const base = await openBase(recipe, opening(places));
  const data = await findData(recipe.data, places, ["train", "validation"]);
  const other = recipe.evalData ? await findData(recipe.evalData, places) : undefined;
  const holdOut = other ? 0 : recipe.holdOut;
  const trainSplit = selectSplit(data, data.split ?? "train", holdOut);
  const evaluationSplit = other
    ? selectSplit(other, other.split ?? "evaluation")
    : selectSplit(data, "validation", holdOut);

  const opened = augment(base, recipe);
  const context = contextOf(opened, recipe.context === "auto" ? undefined : recipe.context);
  const how = { ...reading(places, recipe.threads), ...rowsOf(recipe) };
  const read = (split: DataSplit, remake?: Remake) =>
    readCorpus(opened, split, { ...how, remake }).finally(() => places.onProgress?.(undefined));
  const train = await read(trainSplit);
  const evaluation = await read(evaluationSplit, (other ?? data).remake);
  const { tokenizer } = train;
  const stream = joinForTraining(train.texts, {
    vocabSize: opened.model.config.vocabSize,
    endOfText: train.isRendered ? undefined : tokenizer?.endOfText,
    prefix: tokenizer?.prefix ?? [],
  });
  const heldOut = heldOutShare(evaluationSplit, train.numTokens, evaluation.numTokens);
  if (countTargets(stream, 1) < 1)
    throw new UserError(`${trainSplit.description} holds too little text to train on`);
  const plan = (windows: number | "all") =>
    planWindows(opened, evaluation, { context, windows: windows === "all" ? undefined : windows });
  const tensors = await trainedTensors(opened, recipe);
  const numBase = countParameters(opened.model);
  const trained = tensors.reduce((sum, { values }) => sum + values.length, 0);
  const added = addedParameters(opened.temperatures?.values);
  return {
    recipe,
    places,
    /** As it was opened, and with the temperatures that train. */
    base,
    opened,
    tensors,
    /** Parameters of the base, of the temperatures, and those that train, new or not. */
    parameters: { base: numBase, added, share: added / numBase, trained },
    context,
    /** The first training text as the model sees it; null where tokens have no spelling. */
    example: () => (tokenizer ? exampleOf(train.texts[0]!, tokenizer, context) : null),
    /** To be put beside the model, where it has no such template by itself. */
    chatTemplate: train.chatTemplate,
    /** One stream of training tokens. */
    stream,
    /** Shares of the data's tokens, asked for and actual, where an end of them is held out. */
    heldOut,
    /** Of the texts or token files. */
    sha256: { data: train.dataSha256, evalData: evaluation.dataSha256 },
    /** Windows scored for the report, and on the way. */
    reportPlan: plan(recipe.reportWindows),
    evalPlan: plan(recipe.evalWindows),
  };
}

/** Tokens that are seen at once: how they are written, and whether they count. */
function exampleOf({ tokens, isTarget }: TokenizedText, { spell }: Tokenizer, context: number) {
  const ids = tokens.subarray(0, context);
  const texts = spell(ids);
  return Array.from(ids, (id, i) => ({ id, text: texts[i]!, counts: isTarget?.[i] !== 0 }));
}

/** What is far from the asked share would measure something else than was meant. */
function heldOutShare({ part, description }: DataSplit, numTrain: number, numHeldOut: number) {
  if (part?.side !== "held-out") return null;
  const total = numTrain + numHeldOut;
  const [asked, actual] = [part.share, numHeldOut / total];
  if (actual >= asked / 2 && actual <= asked * 2) return { asked, actual };
  throw new UserError(
    `${description} would be ${(100 * actual).toPrecision(2)} % of its ${total} tokens`,
    { hint: "bring more data, hold out another share, or name evaluation data of its own" },
  );
}
