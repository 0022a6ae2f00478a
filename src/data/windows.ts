// Windows of tokens, and the batches that they are scored or learnt in. A convention of perplexity is a WindowRule, not
// code, and so is training.

import { invariant, UserError } from "../core/errors.ts";
import { createRandom } from "../core/random.ts";
import {
  countTargets,
  createTokens,
  joinedBy,
  type Remake,
  type TokenizedText,
} from "./document.ts";
import { wikitextPages } from "./readers/wikitext.ts";
import type { Tokenizer } from "./tokenizer/tokenizer.ts";

export interface WindowRule {
  /** Tokens that the model sees at once. */
  readonly context: number;
  /** How far the next window begins after the last, 1 to `context`. */
  readonly stride: number;
  /** Whether a window holds one token more than the model sees, so that its last input has a target too. */
  readonly hasFinalTarget: boolean;
  /** A last window that would be shorter is kept short, dropped, or begins earlier so that it is full. */
  readonly tail: "keep" | "drop" | "backfill";
}

/** Tokens `start` to `start + length` of a text, scored from `scoreFrom` (counted within the window, at least 1). */
export interface Window {
  readonly text: number;
  readonly start: number;
  readonly length: number;
  readonly scoreFrom: number;
  /** How many tokens from there on are targets, at least 1. */
  readonly numTargets: number;
}

/**
 * The windows over texts. They never cross texts; each scores the targets that no earlier one did, but not its own
 * first token, which nothing predicts; one without any is left out.
 */
export function evaluationWindows(
  texts: readonly TokenizedText[],
  { context, stride, hasFinalTarget, tail }: WindowRule,
): readonly Window[] {
  if (!(stride >= 1 && stride <= context))
    throw new UserError(`a stride of ${stride} does not fit a context of ${context} tokens`, {
      hint: "the stride is at least 1 and at most the context",
    });
  const span = context + (hasFinalTarget ? 1 : 0);
  const windows: Window[] = [];
  for (const [text, tokenized] of texts.entries()) {
    const numTokens = tokenized.tokens.length;
    let scored = 0;
    for (let start = 0; scored < numTokens; start += stride) {
      const end = Math.min(start + span, numTokens);
      const isShort = end - start < span;
      if (isShort && tail === "drop") break;
      const first = Math.max(scored, start + 1);
      const begin = isShort && tail === "backfill" ? Math.max(0, end - span) : start;
      const numTargets = countTargets(tokenized, first, end);
      const [length, scoreFrom] = [end - begin, first - begin];
      if (numTargets > 0) windows.push({ text, start: begin, length, scoreFrom, numTargets });
      scored = end;
    }
  }
  return windows;
}

/** Named ways to measure perplexity, so that a number can be compared with a published one. */
interface Convention extends Pick<WindowRule, "hasFinalTarget" | "tail"> {
  /** What the rows become. */
  readonly remake: Remake;
  /** Whether a text whose tokenizer puts nothing in front gets BOS there, or EOS where the model has no BOS. */
  readonly alwaysPrefixed: boolean;
  /** Most tokens that a window may have, and its stride where that is not the context. */
  readonly maxContext: number;
  readonly stride?: number;
}

// Rows joined by blank lines, windows of the whole context side by side.
const joinedRows: Convention = {
  remake: joinedBy("\n\n"),
  alwaysPrefixed: false,
  maxContext: Infinity,
  hasFinalTarget: false,
  tail: "keep",
};

export const conventions = {
  "hf-disjoint": joinedRows,
  "hf-stride": { ...joinedRows, stride: 512 },
  // Blocks of 2,048 tokens, the last partial one dropped.
  gptq: { ...joinedRows, maxContext: 2048, tail: "drop" },
  // WikiText pages, detokenized, every token scored; perplexity per original word counts then.
  "lm-eval": {
    remake: wikitextPages,
    alwaysPrefixed: true,
    maxContext: Infinity,
    hasFinalTarget: true,
    tail: "backfill",
  },
} satisfies Readonly<Record<string, Convention>>;

export type ConventionName = keyof typeof conventions;

/** How a convention, or none, cuts windows for a model that sees at most `maxContext` tokens. */
export function windowRule(
  name: ConventionName | undefined,
  maxContext: number,
  asked?: number,
): WindowRule {
  const convention: Convention = name === undefined ? joinedRows : conventions[name];
  const context = Math.min(maxContext, convention.maxContext);
  const { stride = context, hasFinalTarget, tail } = convention;
  return { context, stride: asked ?? stride, hasFinalTarget, tail };
}

/** So many of the items, evenly spread and always the same. */
export function evenSubset<T>(items: readonly T[], limit = Infinity): readonly T[] {
  const place = (i: number) => Math.floor(((i + 0.5) * items.length) / limit);
  return items.length <= limit ? items : Array.from({ length: limit }, (_, i) => items[place(i)]!);
}

export function numScored(windows: readonly Window[]): number {
  return windows.reduce((sum, { numTargets }) => sum + numTargets, 0);
}

/** What a model is fed: rows of token ids, row-major `[batchSize, context]`, and for each the token that follows. */
export interface Batch {
  readonly ids: Int32Array;
  /** The token to predict at each place; −1 where none is. */
  readonly labels: Int32Array;
  /** How many labels are not −1. */
  readonly numTargets: number;
}

/** A row for each window, in one static shape: further rows, and what is behind a window, have no targets. */
export function packWindows(
  texts: readonly TokenizedText[],
  windows: readonly Window[],
  { batchSize, context }: { readonly batchSize: number; readonly context: number },
): Batch {
  const ids = new Int32Array(batchSize * context);
  const labels = new Int32Array(batchSize * context).fill(-1);
  for (const [row, { text, start, length, scoreFrom }] of windows.entries()) {
    const { tokens, isTarget } = texts[text]!;
    ids.set(tokens.subarray(start, start + Math.min(length, context)), row * context);
    // The input before a token predicts it.
    for (let at = scoreFrom; at < length; at++)
      if (isTarget?.[start + at] !== 0) labels[row * context + at - 1] = tokens[start + at]!;
  }
  return { ids, labels, numTargets: numScored(windows) };
}

/** Where in the data a run is: the next block of an epoch's order. Saved with a checkpoint, and all there is to save. */
export interface DataCursor {
  readonly seed: number;
  readonly epoch: number;
  readonly index: number;
}

/**
 * All texts as one stream: each with its prefix in front, the end-of-text token between them (but where the prefix
 * begins with it already). What is between texts is a target: it is how a model learns to end.
 */
export function joinForTraining(
  texts: readonly TokenizedText[],
  { vocabSize, endOfText, prefix }: Pick<Tokenizer, "vocabSize" | "endOfText" | "prefix">,
): TokenizedText {
  if (texts.length === 1) return texts[0]!;
  const isMarked = endOfText === undefined || prefix[0] === endOfText;
  const between: TokenizedText = { tokens: Uint32Array.from(isMarked ? [] : [endOfText]) };
  const parts = texts.flatMap((text, i) => (i === 0 ? [text] : [between, text]));
  const length = parts.reduce((sum, { tokens }) => sum + tokens.length, 0);
  const stream = createTokens(length, vocabSize);
  const isTarget = texts.some((text) => text.isTarget) && new Uint8Array(length).fill(1);
  let at = 0;
  for (const part of parts) {
    stream.set(part.tokens, at);
    if (isTarget && part.isTarget) isTarget.set(part.isTarget, at);
    at += part.tokens.length;
  }
  return { tokens: stream, ...(isTarget && { isTarget }) };
}

/**
 * Blocks of `context + 1` tokens that overlap by one, so that in an epoch every token but the first is a target once.
 * A row's ids are a block without its last token, its labels the block without its first; a last shorter block has
 * labels −1 behind it. Blocks without a target are left out. The order depends on the cursor alone.
 */
export function trainingBatches(
  stream: TokenizedText,
  { context, cursor }: { readonly context: number; readonly cursor: DataCursor },
) {
  const rule = { context, stride: context, hasFinalTarget: true, tail: "keep" } as const;
  const blocks = evaluationWindows([stream], rule);
  invariant(blocks.length > 0, `${stream.tokens.length} tokens make no training block`);
  let { seed, epoch, index } = cursor;
  const orderOf = (epoch: number) => {
    const order = Int32Array.from(blocks.keys());
    createRandom(seed, epoch).shuffle(order);
    return order;
  };
  let order = orderOf(epoch);
  return {
    numBlocks: blocks.length,
    /** The next blocks in shuffled order, on into the next epoch where one ends. */
    next(batchSize: number): Batch {
      const rows = Array.from({ length: batchSize }, () => {
        if (index >= blocks.length) [epoch, index, order] = [epoch + 1, 0, orderOf(epoch + 1)];
        return blocks[order[index++]!]!;
      });
      return packWindows([stream], rows, { batchSize, context });
    },
    /** Handed to `trainingBatches` to continue. */
    cursor: (): DataCursor => ({ seed, epoch, index }),
  };
}
