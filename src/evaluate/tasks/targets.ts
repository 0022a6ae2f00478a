// What tasks have in common that ask how likely a text is after another: the tokens are those of both together, behind
// what the tokenizer itself puts in front; a token that is of both is scored. What is too long for the model loses its
// left end.

import { UserError } from "../../core/errors.ts";
import type { Corpus } from "../../data/corpus.ts";
import type { Piece, TokenizedText } from "../../data/document.ts";
import { isWorthPacking, numInputs, numScored, type Window } from "../../data/windows.ts";
import { contextOf, type OpenedModel } from "../../model/opened.ts";
import type { EvaluateOptions, EvaluationPlan } from "../evaluation.ts";
import type { Losses } from "../scorer.ts";
import { estimateMean } from "../statistics.ts";

/** A context that is not scored and its continuation, which is, with the spaces before it. */
export function targetPieces(context: string, continuation: string): readonly [Piece, Piece] {
  const border = context.trimEnd().length;
  const text = context.slice(border) + continuation;
  return [
    { text: context.slice(0, border), isTarget: false, isLast: false },
    { text, isTarget: true, isLast: true },
  ];
}

/** The end of a text that fits the model, and one token more, which is predicted but not seen. */
export function targetWindow(
  { tokens, isTarget }: TokenizedText,
  text: number,
  context: number,
  [document, part]: readonly [document: string, part: string],
): Window {
  const target = 1 + (isTarget?.subarray().lastIndexOf(0) ?? -1);
  const numTargets = tokens.length - target;
  if (target === 0 || numTargets < 1 || numTargets > context)
    throw new UserError(
      `${document} has ${target} tokens before its ${part} and ${numTargets} in it, expected at least 1 and 1 to ${context}`,
    );
  const start = Math.max(0, tokens.length - context - 1);
  return { text, start, length: tokens.length - start, scoreFrom: target - start, numTargets };
}

/** Such an end of every text. */
export const targetWindows = ({ texts }: Corpus, context: number, part: string) =>
  texts.map((text, i) => targetWindow(text, i, context, [`document ${i + 1}`, part]));

/** The tokens that the model sees at once; nothing that cuts documents is allowed. */
export function wholeContext(task: string, opened: OpenedModel, options: EvaluateOptions): number {
  if (options.stride ?? options.convention)
    throw new UserError(`${task} scores whole documents: no stride and no convention`);
  return contextOf(opened, options.context ?? opened.model.config.maxPositions);
}

/** Windows of a corpus whose tokens are seen and targets scored, as a plan; `figuresOf` takes losses in their order. */
export function planTargets<Figures>(
  task: string,
  { texts, dataSha256 }: Corpus,
  windows: readonly Window[],
  how: EvaluateOptions & Pick<EvaluationPlan, "needsArgmax" | "perplexityOf"> & { context: number },
  figuresOf: (losses: Losses) => Figures,
) {
  const { context, needsArgmax, perplexityOf, mayPack } = how;
  const groups = targetGroups(windows, context, mayPack);
  const places = new Map(groups.flatMap((group) => group.windows).map((window, i) => [window, i]));
  const conditions = { task, context, dataSha256, numTokens: numScored(windows) };
  const resultOf = (losses: Losses, modelSha256: string) => {
    const figures = figuresOf(windows.map((window) => losses[places.get(window)!]!));
    return { ...conditions, ...figures, modelSha256 };
  };
  return { texts, groups, needsArgmax, perplexityOf, conditions, resultOf };
}

/** Of documents: a target is right where each of its tokens is the likeliest, as greedy generation would write it. */
export function accuracyOf(losses: Losses) {
  const isRight = losses.map(({ isArgmax }) => Number(isArgmax!.every(Boolean)));
  const { mean, standardError } = estimateMean(isRight);
  return {
    /** Share of the documents whose target is right. */
    accuracy: mean,
    accuracyStandardError: standardError,
    numDocuments: losses.length,
    /** 1 where it is, else 0. */
    outcomes: isRight.join(""),
  };
}

/** Tokens of a row that holds several windows: enough for a device, few enough that attention costs little. */
const PACKED_CONTEXT = 512;

/** Windows side by side in rows where that saves most of the rows, else in at most four groups of similar length. */
function targetGroups(windows: readonly Window[], context: number, mayPack = true) {
  const sorted = windows.toSorted((a, b) => a.length - b.length);
  const all = windows.reduce((sum, window) => sum + numInputs(window), 0);
  const row = Math.max(numInputs(sorted.at(-1)!), Math.min(PACKED_CONTEXT, context, all));
  if (mayPack && isWorthPacking(windows, row)) return [{ context: row, windows, isPacked: true }];
  const size = Math.ceil(sorted.length / 4);
  return Array.from({ length: Math.ceil(sorted.length / size) }, (_, i) => {
    const group = sorted.slice(i * size, (i + 1) * size);
    return { context: numInputs(group.at(-1)!), windows: group };
  });
}

/** For people: a figure and its standard error. */
export const withError = (value: number, error: number | null) =>
  value.toPrecision(5) + (error === null ? "" : ` ± ${error.toPrecision(2)}`);
