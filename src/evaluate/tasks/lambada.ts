// LAMBADA (Paperno et al., 2016): is the last word of a passage what the model finds likeliest? As the language-model
// evaluation harness measures its `lambada_openai`: all behind the last space of a row's text is the target, together
// with the spaces before it; the rest is its context. Tokens are those of the whole text, behind what the tokenizer
// itself puts in front; a token that is of both parts is scored. What is too long for the model loses its left end.

import { UserError } from "../../core/errors.ts";
import type { DocumentStream, Piece, TokenizedText } from "../../data/document.ts";
import { evenSubset, numScored, type Window } from "../../data/windows.ts";
import { readCorpus } from "../../model/places.ts";
import { contextOf, type Task } from "../evaluation.ts";
import type { TaskResult } from "../results.ts";
import { estimateMean } from "../statistics.ts";
import type { WindowLoss } from "../scorer.ts";

export type LambadaResult = TaskResult & { readonly task: "lambada" } & ReturnType<typeof figures>;

export const lambada: Task<LambadaResult> = {
  async plan(opened, split, { windows: limit, context: asked, stride, convention, ...options }) {
    if (stride ?? convention)
      throw new UserError("lambada scores whole documents: no stride and no convention");
    const context = contextOf(opened, asked ?? opened.model.config.maxPositions);
    const remake = { name: "last words", of: lastWords };
    const { texts, dataSha256 } = await readCorpus(opened, split, { ...options, remake });
    const windows = evenSubset(
      texts.map((text, i) => targetWindow(text, i, context)),
      limit,
    );
    const numTokens = numScored(windows);
    const conditions = { task: "lambada", context, dataSha256, numTokens } as const;
    return {
      texts,
      groups: groupsByLength(windows),
      needsArgmax: true,
      conditions,
      resultOf: (losses, modelSha256) => ({ ...conditions, ...figures(losses), modelSha256 }),
    };
  },
  summary: (result) => [
    ["accuracy", withError(result.accuracy, result.accuracyStandardError)],
    ["perplexity", withError(result.perplexity, result.perplexityStandardError)],
    ["documents", result.numDocuments],
    ["tokens scored", result.numTokens],
  ],
};

function figures(losses: readonly WindowLoss[]) {
  const isRight = losses.map(({ isArgmax }) => Number(isArgmax!.every(Boolean)));
  const [accuracy, nats] = [estimateMean(isRight), estimateMean(losses.map(({ nats }) => nats))];
  const perplexity = Math.exp(nats.mean);
  return {
    /** Share of the documents whose target is what the model finds likeliest, token after token. */
    accuracy: accuracy.mean,
    accuracyStandardError: accuracy.standardError,
    /** exp of the mean, over documents, of the target's nats summed over its tokens. */
    perplexity,
    // That of the mean times the exponential's slope; the harness draws bootstrap samples.
    perplexityStandardError: nats.standardError && perplexity * nats.standardError,
    numDocuments: losses.length,
  };
}

/** Makes all but the last word of each document a context that is not scored. */
async function* lastWords(pieces: DocumentStream): AsyncGenerator<Piece> {
  let text = "";
  for await (const piece of pieces) {
    text += piece.text;
    if (!piece.isLast) continue;
    const border = text.slice(0, Math.max(0, text.lastIndexOf(" "))).trimEnd().length;
    yield { text: text.slice(0, border), isTarget: false, isLast: false };
    yield { text: text.slice(border), isTarget: true, isLast: true };
    text = "";
  }
}

/** The end of a document that fits the model, and one token more, which is predicted but not seen. */
function targetWindow({ tokens, isTarget }: TokenizedText, text: number, context: number): Window {
  const target = 1 + (isTarget?.subarray().lastIndexOf(0) ?? -1);
  const numTargets = tokens.length - target;
  if (target === 0 || numTargets < 1 || numTargets > context)
    throw new UserError(
      `document ${text + 1} has ${target} tokens before its last word and ${numTargets} in it, expected at least 1 and 1 to ${context}`,
    );
  const start = Math.max(0, tokens.length - context - 1);
  return { text, start, length: tokens.length - start, scoreFrom: target - start, numTargets };
}

/** At most four groups of windows of similar length, each as long as its longest needs. */
function groupsByLength(windows: readonly Window[]) {
  const sorted = windows.toSorted((a, b) => a.length - b.length);
  const size = Math.ceil(sorted.length / 4);
  return Array.from({ length: Math.ceil(sorted.length / size) }, (_, i) => {
    const group = sorted.slice(i * size, (i + 1) * size);
    return { context: group.at(-1)!.length - 1, windows: group };
  });
}

const withError = (value: number, error: number | null) =>
  value.toPrecision(5) + (error === null ? "" : ` ± ${error.toPrecision(2)}`);
