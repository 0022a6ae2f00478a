// How a run's texts lie in windows, those that it learns and those that are scored, wherever it runs.

import { UserError } from "../core/errors.ts";
import type { Corpus } from "../data/corpus.ts";
import { packingOf, trainingSet } from "../data/training.ts";
import type { Tokenizer } from "../data/tokenizer/read-tokenizer.ts";
import type { Window } from "../data/windows.ts";
import type { Losses } from "../evaluate/scorer.ts";
import { planWindows, type WindowPlan } from "../evaluate/window-plan.ts";
import type { OpenedModel } from "../model/opened.ts";
import type { Recipe } from "../options/schema.ts";

interface Source extends Pick<Corpus, "texts" | "isRendered"> {
  readonly tokenizer?: Pick<Tokenizer, "endOfText" | "prefix">;
  readonly path: string;
  readonly weight: number | null;
  /** For people. */
  readonly description: string;
}

type LayOut = Pick<Recipe, "packing" | "reportWindows" | "evalWindows"> & {
  readonly context: number;
};

export function layOut(opened: OpenedModel, how: LayOut, train: readonly Source[], scored: Corpus) {
  const { context } = how;
  // One graph learns from all sources, so that one rule lays them in rows.
  const all = train.flatMap(({ texts }) => texts);
  const packing = packingOf(how.packing, all);
  const sources = train.map(({ texts, tokenizer, isRendered, path: name, weight, ...split }) => {
    const { prefix = [] } = tokenizer ?? {};
    const endOfText = isRendered ? undefined : tokenizer?.endOfText;
    const training = trainingSet(texts, { packing, context, endOfText, prefix });
    if (training.windows.length === 0)
      throw new UserError(`${split.description} holds too little text to train on`);
    const [numRows, numTokens] = [training.facts.rows, training.stream.tokens.length];
    return { name, weight, numRows, numTokens, training };
  });
  const mayPack = how.packing === "auto" || packing === "documents";
  const plan = (limit: number | "all") => {
    const windows = limit === "all" ? undefined : limit;
    return planWindows(opened, scored, { context, windows, mayPack });
  };
  const [reportPlan, evalPlan] = [plan(how.reportWindows), plan(how.evalWindows)];
  return {
    sources,
    /** Of the graphs that learn, and that score on the way, but for the size of a batch. */
    shapes: {
      training: { context, isPacked: packing === "documents" },
      scoring: { context, isPacked: reportPlan.isPacked },
    },
    /** Windows scored for the report, and on the way. */
    reportPlan,
    evalPlan,
  };
}

/** The losses of one plan's windows taken from another's, where all are among them. */
export function subset(losses: Losses, from: WindowPlan, to: WindowPlan) {
  const key = ({ text, start }: Window) => `${text} ${start}`;
  const known = new Map(from.windows.map((window, i) => [key(window), losses[i]!]));
  const found = to.windows.map((window) => known.get(key(window)));
  return found.every((loss) => loss !== undefined) ? found : undefined;
}
