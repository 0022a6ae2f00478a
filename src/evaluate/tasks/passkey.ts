// Passkey retrieval (Mohtashami and Jaggi, 2023): a number is told once in text that is about nothing, and asked for at its
// end. Right is what greedy generation would write, which is that each token of the number is the likeliest.

import { createRandom } from "../../core/random.ts";
import { UserError } from "../../core/errors.ts";
import type { Piece } from "../../data/document.ts";
import { readCorpus, tokenizerOf } from "../../model/places.ts";
import { contextOf } from "../../model/opened.ts";
import type { Task } from "../evaluation.ts";
import type { TaskResult } from "../results.ts";
import type { Losses } from "../scorer.ts";
import { accuracyOf, planTargets, targetPieces } from "./targets.ts";
import { targetWindows, wholeContext, withError } from "./targets.ts";

export type PasskeyResult = TaskResult & ReturnType<typeof figures>;

const FILLER = [
  "The road goes on past the mill and down to the river.",
  "A cart stands in the yard, and nobody has moved it.",
  "It rained in the morning, and then it was dry again.",
  "The baker opens at six and closes when the bread is gone.",
  "Two birds sit on the roof and look at the field.",
  "Somebody left a lamp on in the house by the bridge.",
  "The clock in the hall is slow, as it was last year.",
];
const HEAD = "There is one number in this text that matters. Remember it.";
const QUESTION = "What is the pass key? The pass key is";
const DEPTHS = [0, 25, 50, 75, 100];
const TRIALS = 10;

/** What is asked in one document. */
interface Trial {
  /** Tokens, at most, with the answer. */
  readonly length: number;
  /** Percent of the filler that is before the number. */
  readonly depth: number;
  readonly key: number;
  /** Where the filler begins, which goes round. */
  readonly first: number;
}

export const passkey: Task<PasskeyResult> = {
  data: null,
  async plan(opened, split, { windows: limit = Infinity, passkey: asked = {}, ...given }) {
    const { cacheFolder: _, ...options } = given;
    const { depths = DEPTHS, trials = TRIALS, seed = 0 } = asked;
    const longest = Math.max(...(asked.lengths ?? [contextOf(opened, options.context)]));
    const context = wholeContext("passkey", opened, { ...options, context: longest });
    const tokenizer = await tokenizerOf(opened);
    const count = (trial: Trial, numFiller: number) =>
      tokenizer.prefix.length + tokenizer.encode(piecesOf(trial, numFiller)).ids.length;
    const any = { length: 0, depth: 0, key: 99_999, first: 0 };
    const least = count(any, 1);
    const perSentence = (count(any, 1 + FILLER.length) - least) / FILLER.length;
    const usual = [8, 4, 2, 1].map((part) => Math.floor(context / part));
    const lengths = asked.lengths ?? usual.filter((length) => length >= least);
    if (lengths.length === 0 || Math.min(...lengths) < least)
      throw new UserError(`passkey needs lengths of at least ${least} tokens`, {
        hint: `as ${opened.folder} counts them, which takes up to ${opened.model.config.maxPositions}`,
      });
    const random = createRandom(seed);
    const cells = lengths.flatMap((length) => depths.map((depth) => ({ length, depth })));
    const each = Math.max(1, Math.min(trials, Math.floor(limit / cells.length)));
    const documents = cells.flatMap((cell) =>
      Array.from({ length: each }, () => {
        const key = 10_000 + Math.floor(90_000 * random.uniform());
        const trial = { ...cell, key, first: Math.floor(FILLER.length * random.uniform()) };
        let numFiller = 2 + Math.ceil((cell.length - least) / perSentence);
        while (count(trial, numFiller) > cell.length) numFiller--;
        return piecesOf(trial, numFiller);
      }),
    );
    const remake = { name: "passkeys", of: () => documents.flat() };
    const corpus = await readCorpus(opened, split, { ...options, remake });
    const windows = targetWindows(corpus, context, "pass key");
    const how = { ...options, context, needsArgmax: true };
    return planTargets("passkey", corpus, windows, how, (losses) => figures(cells, losses));
  },
  summary: ({ accuracy, accuracyStandardError, cells, ...result }) => [
    ["accuracy", withError(accuracy, accuracyStandardError)],
    ...[...new Set(cells.map(({ length }) => length))].map((length) => {
      const row = cells.filter((cell) => cell.length === length);
      const shown = row.map(({ depth, accuracy }) => `${depth} %: ${accuracy.toFixed(2)}`);
      return [`${length} tokens`, shown.join("  ")] as const;
    }),
    ["trials", `${result.numDocuments}, ${cells[0]!.trials} at each length and depth`],
  ],
};

function piecesOf({ depth, key, first }: Trial, numFiller: number): readonly Piece[] {
  const filler = Array.from({ length: numFiller }, (_, i) => FILLER[(first + i) % FILLER.length]!);
  const before = Math.round((numFiller * depth) / 100);
  filler.splice(before, 0, `The pass key is ${key}. Remember it. ${key} is the pass key.`);
  return targetPieces([HEAD, ...filler, QUESTION].join(" "), ` ${key}`);
}

function figures(cells: readonly Pick<Trial, "length" | "depth">[], losses: Losses) {
  const trials = losses.length / cells.length;
  const ofCells = cells.map((cell, i) => {
    const { accuracy } = accuracyOf(losses.slice(i * trials, (i + 1) * trials));
    return { ...cell, accuracy, trials };
  });
  return { ...accuracyOf(losses), cells: ofCells };
}
