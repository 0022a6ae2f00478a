// LAMBADA (Paperno et al., 2016): is the last word of a passage what the model finds likeliest? As the language-model
// evaluation harness measures its `lambada_openai`: all behind the last space of a row's text is the target, together
// with the spaces before it; the rest is its context.

import type { DocumentStream, Piece } from "../../data/document.ts";
import { evenSubset } from "../../data/windows.ts";
import { readCorpus } from "../../model/places.ts";
import type { Task } from "../evaluation.ts";
import type { TaskResult } from "../results.ts";
import { estimateMean } from "../statistics.ts";
import type { Losses } from "../scorer.ts";
import { accuracyOf, planTargets, targetPieces } from "./targets.ts";
import { targetWindows, wholeContext, withError } from "./targets.ts";

export type LambadaResult = TaskResult & ReturnType<typeof figures>;

export const lambada: Task<LambadaResult> = {
  data: "EleutherAI/lambada_openai:default",
  async plan(opened, split, { windows: limit, ...options }) {
    const context = wholeContext("lambada", opened, options);
    const remake = { name: "last words", of: lastWords };
    const corpus = await readCorpus(opened, split, { ...options, remake });
    const windows = evenSubset(targetWindows(corpus, context, "last word"), limit);
    const how = { ...options, context, needsArgmax: true, perplexityOf: "documents" } as const;
    return planTargets("lambada", corpus, windows, how, figures);
  },
  summary: (result) => [
    ["accuracy", withError(result.accuracy, result.accuracyStandardError)],
    ["perplexity", withError(result.perplexity, result.perplexityStandardError)],
    ["documents", result.numDocuments],
    ["tokens scored", result.numTokens],
  ],
};

function figures(losses: Losses) {
  const { mean, standardError } = estimateMean(losses.map(({ nats }) => nats));
  const perplexity = Math.exp(mean);
  return {
    ...accuracyOf(losses),
    /** exp of the mean, over documents, of the target's nats summed over its tokens. */
    perplexity,
    // That of the mean times the exponential's slope; the harness draws bootstrap samples.
    perplexityStandardError: standardError && perplexity * standardError,
  };
}

/** Makes all but the last word of each document a context that is not scored. */
async function* lastWords(pieces: DocumentStream): AsyncGenerator<Piece> {
  let text = "";
  for await (const piece of pieces) {
    text += piece.text;
    if (!piece.isLast) continue;
    const border = Math.max(0, text.lastIndexOf(" "));
    yield* targetPieces(text.slice(0, border), text.slice(border));
    text = "";
  }
}
