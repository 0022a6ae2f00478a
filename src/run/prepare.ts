// Everything that a run needs before its first step: the augmented model, its data as tokens, windows and tensors.

import { UserError } from "../core/errors.ts";
import { type Corpus, cutCorpus, joinCorpora } from "../data/corpus.ts";
import type { Remake, TokenizedText } from "../data/document.ts";
import { sharesOf } from "../data/training.ts";
import { type DataSplit, selectSplit } from "../data/readers/files.ts";
import type { Tokenizer } from "../data/tokenizer/read-tokenizer.ts";
import { expectDevice } from "../engines/index.ts";
import type { EvaluationPlan } from "../evaluate/evaluation.ts";
import { describeQuantization, quantizationOf } from "../model/blocks.ts";
import { openModel } from "../model/open.ts";
import { contextOf, countParameters } from "../model/opened.ts";
import { withBlocks } from "../model/quantize.ts";
import { floatsOf } from "../model/weights.ts";
import * as where from "../model/places.ts";
import { type Recipe, sourcesOf } from "../options/schema.ts";
import { addedParameters, augment, trainedTensors } from "../train/groups.ts";
import { planTask } from "./evaluate.ts";
import { layOut } from "./lay-out.ts";

export type Prepared = Awaited<ReturnType<typeof prepareRun>>;

/** What a recipe learns, of each source, and what is held out. */
export async function splitsOf(recipe: Recipe, places: where.Places) {
  const { evalData, maxTokens } = recipe;
  const holdOut = evalData ? 0 : recipe.holdOut;
  const learnt: DataSplit[] = [];
  const heldOut: (DataSplit & { readonly remake?: Remake | undefined })[] = [];
  const find = (name: string, splits?: readonly string[]) =>
    where.findData(name, places, splits, maxTokens !== null);
  for (const { path, split } of sourcesOf(recipe)) {
    const { remake, ...data } = await find(path, [split ?? "train", "validation"]);
    learnt.push(selectSplit(data, split ?? data.split ?? "train", holdOut));
    if (!evalData) heldOut.push({ ...selectSplit(data, "validation", holdOut), remake });
  }
  if (!evalData) return { learnt, heldOut };
  const { remake, ...data } = await find(evalData);
  return { learnt, heldOut: [{ ...selectSplit(data, data.split ?? "evaluation"), remake }] };
}

/** Opens and reads what a recipe names; `heldIn` holds out that share of the training text instead of what is held out. */
export async function prepareRun(recipe: Recipe, places: where.Places, heldIn = 0) {
  // A mistyped name is told before another one is fetched.
  const asked = sourcesOf(recipe);
  await where.checkNames(recipe.base, ...asked.map(({ path }) => path), recipe.evalData);
  const spec = quantizationOf(recipe);
  const withoutWeights = recipe.init === "random";
  const plain = await openModel(recipe.base, { ...where.opening(places), withoutWeights });
  if (plain.quantized && recipe.tune.includes("all"))
    throw new UserError(
      `tune: all trains matrices, which ${recipe.base} has only frozen: ${describeQuantization(plain.quantized.spec)}`,
      { hint: "leave all out, or take the checkpoint that it was quantised from" },
    );
  expectDevice(recipe.device);
  const splits = await splitsOf(recipe, places);

  // After all names, for it takes minutes.
  const base = await withBlocks(plain, spec, places);
  const opened = augment(base, recipe);
  // Refused before anything is read.
  const context = contextOf(opened, recipe.context === "auto" ? undefined : recipe.context);
  const how = { ...recipe, ...where.reading(places, recipe.threads) };
  const isDone = () => places.onProgress?.(undefined);
  const read = (split: DataSplit, remake?: Remake) =>
    where.readCorpus(opened, split, { ...how, remake }).finally(isDone);
  const train: Awaited<ReturnType<typeof read>>[] = [];
  const evaluations: Corpus[] = [];
  for (const split of splits.learnt) {
    const whole = await read(split);
    const [kept, end] = heldIn > 0 ? cutCorpus(whole, heldIn) : [];
    train.push({ ...whole, ...kept });
    if (end) evaluations.push(end);
  }
  for (const { remake, ...split } of heldIn > 0 ? [] : splits.heldOut)
    evaluations.push(await read(split, remake));
  const evaluation = joinCorpora(evaluations);
  const described = train.map((of, i) => ({ ...of, ...splits.learnt[i]!, ...asked[i]! }));
  const { sources, ...laidOut } = layOut(opened, { ...recipe, context }, described, evaluation);
  const shares = sharesOf(sources);
  const heldOut = heldIn > 0 ? null : heldOutShare(splits.heldOut, train, evaluations);
  const dataName = (i: number) => (train.length > 1 ? `data ${i + 1}, ${asked[i]!.path},` : "data");
  const tasks: Record<string, EvaluationPlan> = {};
  for (const name of recipe.tasks ?? [])
    tasks[name] = await planTask(name, opened, undefined, places, { threads: recipe.threads });
  const tensors = await trainedTensors(opened, recipe, floatsOf);
  const numBase = countParameters(opened.model);
  const trained = tensors.reduce((sum, { values }) => sum + values.length, 0);
  const added = addedParameters(opened);
  return {
    recipe,
    places,
    /** As it was opened, and with what is inserted to train. */
    base,
    opened,
    tensors,
    /** Parameters of the base, of what is inserted, and those that train, new or not. */
    parameters: { base: numBase, added, share: added / numBase, trained },
    context,
    ...laidOut,
    /** The first training text as the model sees it; null where tokens have no spelling. */
    example: () => {
      const { texts, tokenizer } = train[0]!;
      return tokenizer ? exampleOf(texts[0]!, tokenizer, context) : null;
    },
    /** How tokens are written; undefined where nothing says it. */
    spell: train[0]!.tokenizer?.spell,
    /** To be put beside the model, where it has no such template by itself. */
    chatTemplate: train.find(({ chatTemplate }) => chatTemplate !== undefined)?.chatTemplate,
    /** What is learnt, each with its share of an epoch's sequences. */
    sources: sources.map((source, i) => ({ ...source, share: shares[i]! })),
    trainTokens: sources.reduce((sum, { numTokens }) => sum + numTokens, 0),
    /** Shares of the data's tokens, asked for and actual, where an end of them is held out. */
    heldOut,
    /** Of the texts or token files. */
    sha256: {
      ...Object.fromEntries(train.map(({ dataSha256 }, i) => [dataName(i), dataSha256])),
      evalData: evaluation.dataSha256,
    },
    /** What is asked before and after, by name. */
    tasks,
  };
}

/** Of each source its tokens, its share of the sequences that are learnt, and how it lies in them. */
export const sourceFacts = ({ sources }: Pick<Prepared, "sources">) =>
  sources.map(({ name, numTokens, share, training }) => {
    return { name, tokens: numTokens, share, packing: training.facts };
  });

/** Tokens that are seen at once: how they are written, and whether they count. */
function exampleOf({ tokens, isTarget }: TokenizedText, { spell }: Tokenizer, context: number) {
  const end = Math.min(context, tokens.length);
  const [ids, counted] = [tokens.subarray(0, end), isTarget?.subarray(0, end)];
  const texts = spell(ids);
  return Array.from(ids, (id, i) => ({ id, text: texts[i]!, counts: counted?.[i] !== 0 }));
}

type Counted = readonly Pick<Corpus, "numTokens">[];

/** What is far from the asked share would measure something else than was meant. */
function heldOutShare(splits: readonly DataSplit[], train: Counted, heldOut: Counted) {
  let [asked, all, held] = [0, 0, 0];
  for (const [i, { part, description }] of splits.entries()) {
    if (part?.side !== "held-out") continue;
    const { numTokens } = heldOut[i]!;
    const total = train[i]!.numTokens + numTokens;
    const actual = numTokens / total;
    asked = part.share;
    const percent = `${(100 * actual).toPrecision(2)} %`;
    if (actual < asked / 2 || actual > asked * 2)
      throw new UserError(`${description} would be ${percent} of its ${total} tokens`, {
        hint: "bring more data, hold out another share, or name evaluation data of its own",
      });
    all += total;
    held += numTokens;
  }
  return all > 0 ? { asked, actual: held / all } : null;
}
