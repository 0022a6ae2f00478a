// Multiple choice as the language-model evaluation harness measures it: of several continuations the one that the model
// finds likeliest, summed over its tokens (acc) or per character of the choice (acc_norm), is its answer.

import { invariant, UserError } from "../../core/errors.ts";
import type { RowMaker } from "../../data/readers/rows.ts";
import { evenSubset } from "../../data/windows.ts";
import { readCorpus } from "../../model/places.ts";
import type { Task } from "../evaluation.ts";
import type { TaskResult } from "../results.ts";
import type { Losses } from "../scorer.ts";
import { estimateMean } from "../statistics.ts";
import type { ChoiceRow, Question } from "./choice-rows.ts";
import { planTargets, targetPieces, targetWindow, wholeContext, withError } from "./targets.ts";

export type ChoiceResult = TaskResult & ReturnType<typeof figures>;

export const choiceTask = (task: string, row: ChoiceRow): Task<ChoiceResult> => ({
  data: row.data,
  async plan(opened, split, { windows: limit, ...options }) {
    const context = wholeContext(task, opened, options);
    const questions: Placed[] = [];
    let numTexts = 0;
    const make: RowMaker = {
      needs: row.needs,
      pieces(fields) {
        const { pairs, gold } = row.question(fields);
        questions.push({ pairs, gold, number: questions.length + 1, firstText: numTexts });
        numTexts += pairs.length;
        return pairs.flatMap(([before, choice], i) => {
          const [head, target] = targetPieces(before, ` ${choice}`);
          // What is right is part of the data.
          return [head, { ...target, original: target.text + (i === gold ? "\u0002" : "") }];
        });
      },
    };
    const { cacheFolder: _, ...reading } = options;
    // Nothing is kept: the questions come of the rows, which tokens on disk would spare.
    const corpus = await readCorpus(opened, split, { ...reading, remake: undefined, make });
    const { texts } = corpus;
    if (questions.length === 0)
      throw new UserError(`${split.description} has no rows with ${row.needs.join(", ")}`, {
        hint: `${task} without --data is ${row.data}`,
      });
    invariant(texts.length === numTexts, "a choice without a token");
    const chosen = evenSubset(questions, limit);
    const windows = chosen.flatMap(({ pairs, number, firstText }) =>
      pairs.map((_, i) => {
        const place = [`question ${number}`, `choice ${i + 1}`] as const;
        return targetWindow(texts[firstText + i]!, firstText + i, context, place);
      }),
    );
    const how = { ...options, context, needsArgmax: false };
    return planTargets(task, corpus, windows, how, (losses) =>
      figures(chosen, losses, row.isNormalized),
    );
  },
  summary: ({ acc, acc_norm: norm, ...result }) => [
    ["acc", withError(acc, result.acc_stderr)],
    ["acc_norm", norm === undefined ? "" : withError(norm, result.acc_norm_stderr!)],
    ["questions", result.numDocuments],
    ["tokens scored", result.numTokens],
  ],
});

/** With its number from 1, and its first choice's place among the texts. */
type Placed = Question & Readonly<Record<"number" | "firstText", number>>;

/** Of the losses of the questions' choices, one question after another. */
function figures(questions: readonly Question[], losses: Losses, isNormalized: boolean) {
  const rights = (scoreOf: (sum: number, choice: string) => number) => {
    let at = 0;
    return questions.map(({ pairs, gold }) => {
      const scores = pairs.map(([, choice]) => scoreOf(losses[at++]!.nats, choice));
      // The first of equals.
      return Number(scores.indexOf(Math.min(...scores)) === gold);
    });
  };
  const isRight = rights((sum) => sum);
  const acc = estimateMean(isRight);
  // In characters as Python counts them, without the space before.
  const norm = estimateMean(rights((sum, choice) => sum / Array.from(choice).length));
  return {
    // The harness's own names.
    acc: acc.mean,
    acc_stderr: acc.standardError,
    ...(isNormalized && { acc_norm: norm.mean, acc_norm_stderr: norm.standardError }),
    numDocuments: questions.length,
    /** 1 where `acc` counts the question as right, else 0: what two models are compared by. */
    outcomes: isRight.join(""),
  };
}
