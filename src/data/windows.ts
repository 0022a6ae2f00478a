// Windows of tokens, and the batches that they are scored or learnt in. A convention of perplexity is a WindowRule, not
// code, and so is training; several windows may lie in one row, of which none sees another.

import { UserError } from "../core/errors.ts";
import { countTargets, joinedBy, partAt, type Remake, type TokenizedText } from "./document.ts";
import { wikitextPages } from "./readers/wikitext.ts";

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

/** Windows in order, each made when it is asked for, so that they take no memory, however many they are. */
export interface Windows extends Iterable<Window> {
  readonly length: number;
  at(index: number): Window | undefined;
}

/** Of a text, the `text`th, what is taken for one. */
type Stretch = Readonly<{ of: TokenizedText; text: number; from: number; to: number }>;

export const evaluationWindows = (texts: readonly TokenizedText[], rule: WindowRule): Windows =>
  windowsOver(texts.length, rule, (text) => {
    const of = texts[text]!;
    return { of, text, from: 0, to: of.tokens.length };
  });

/**
 * The windows over so many stretches. They never cross one's end; each scores the targets that no earlier one did, but
 * not its own first token, which nothing predicts; one without any is left out.
 */
export function windowsOver(
  count: number,
  { context, stride, hasFinalTarget, tail }: WindowRule,
  stretchAt: (index: number) => Stretch,
): Windows {
  if (!(stride >= 1 && stride <= context))
    throw new UserError(`a stride of ${stride} does not fit a context of ${context} tokens`, {
      hint: "the stride is at least 1 and at most the context",
    });
  const span = context + (hasFinalTarget ? 1 : 0);
  // A first token alone is no target.
  const alone = span > stride ? 0 : 1;
  let hasAllTargets = span > 1;
  const starts = new Float64Array(count + 1);
  for (let i = 0; i < count; i++) {
    const { of, from, to } = stretchAt(i);
    const further = to - from - span;
    const whole = Math.max(0, Math.floor(further / stride) + 1);
    const all = to - from > 1 ? 1 + Math.max(0, Math.ceil((further - alone) / stride)) : 0;
    starts[i + 1] = starts[i]! + (tail === "drop" ? whole : all);
    hasAllTargets &&= !of.isTarget;
  }
  const at = (index: number): Window => {
    const part = partAt(starts, index);
    const { of, text, from, to } = stretchAt(part);
    const start = from + (index - starts[part]!) * stride;
    const end = Math.min(start + span, to);
    const first = Math.max(start > from ? start - stride + span : from, start + 1);
    const begin = end - start < span && tail === "backfill" ? Math.max(from, end - span) : start;
    const numTargets = countTargets(of, first, end);
    return { text, start: begin, length: end - begin, scoreFrom: first - begin, numTargets };
  };
  const length = starts[count]!;
  const all = function* () {
    for (let index = 0; index < length; index++) yield at(index);
  };
  return hasAllTargets
    ? { length, at, [Symbol.iterator]: all }
    : Array.from(all()).filter(({ numTargets }) => numTargets > 0);
}

/** Where in a window the tokens are that it scores, 1 or later. */
export function* scoredPlaces(
  { isTarget }: Pick<TokenizedText, "isTarget">,
  { start, length, scoreFrom }: Window,
): Generator<number> {
  const counts = isTarget?.subarray(start, start + length);
  for (let i = scoreFrom; i < length; i++) if (counts?.[i] !== 0) yield i;
}

/** Inputs that a window takes in a row: its last token is there to be predicted. */
export const numInputs = ({ length }: Window) => length - 1;

/**
 * Windows side by side in rows of so many inputs, by best-fit decreasing: the longest first, each into the row that it
 * fills best, in the order given among equals. How many rows there are does not depend on that order.
 */
export function packRows(windows: Iterable<Window>, context: number): Window[][] {
  const rows: Window[][] = [];
  const bySpace: Window[][][] = Array.from({ length: context + 1 }, () => []);
  for (const window of [...windows].sort((a, b) => b.length - a.length)) {
    const size = numInputs(window);
    let space = size;
    while (space < context && bySpace[space]!.length === 0) space++;
    let row = bySpace[space]!.pop();
    if (!row) rows.push((row = []));
    row.push(window);
    bySpace[space - size]!.push(row);
  }
  return rows;
}

/** Whether packing windows would at least halve their rows. */
export function isWorthPacking(windows: Windows, context: number): boolean {
  let inputs = 0;
  for (const window of windows) inputs += numInputs(window);
  // Rows are never fewer than would be full.
  if (2 * inputs > windows.length * context) return false;
  return 2 * packRows(windows, context).length <= windows.length;
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
export function windowRule(name: ConventionName | undefined, maxContext: number, asked?: number) {
  const convention: Convention = name === undefined ? joinedRows : conventions[name];
  const context = Math.min(maxContext, convention.maxContext);
  const { stride = context, hasFinalTarget, tail } = convention;
  if (asked === undefined && stride > context)
    throw new UserError(`${name} has a stride of ${stride}, and the context is ${context} tokens`, {
      hint: "hf-disjoint is for shorter models too, or name a --stride of at most the context",
    });
  if (name && name !== "hf-stride" && asked !== undefined && asked !== stride)
    throw new UserError(`${name} has a stride of ${stride} here, found ${asked}`, {
      hint: "leave out --stride or --convention; a stride of one's own is of hf-stride",
    });
  return { context, stride: asked ?? stride, hasFinalTarget, tail };
}

/** So many of the items, evenly spread and always the same. */
export function evenSubset<T>(items: Pick<readonly T[], "length" | "at">, limit = Infinity): T[] {
  const count = Math.min(items.length, limit);
  const place = (i: number) => Math.floor(((i + 0.5) * items.length) / count);
  return Array.from({ length: count }, (_, i) => items.at(place(i))!);
}

/** One of several jobs among which work is dealt, from 1. */
export type Shard = Readonly<{ index: number; count: number }>;

/** What of the items is a shard's: every `count`th from the `index`th on; without a shard all. */
export const ofShard = <T>(items: readonly T[], shard: Shard | undefined): readonly T[] =>
  shard ? items.filter((_, i) => i % shard.count === shard.index - 1) : items;

export const numScored = (windows: readonly Window[]): number =>
  windows.reduce((sum, { numTargets }) => sum + numTargets, 0);

export type Batch = Readonly<ReturnType<typeof packWindows>>;

/** Of windows in one run of a graph. */
export interface BatchShape {
  /** Rows, and the tokens of each. */
  readonly batchSize: number;
  readonly context: number;
  /** Whether a row may hold several windows, of which none sees another. */
  readonly isPacked?: boolean;
}

/** Tokens of a batch beyond which even to plan it takes minutes. */
const MOST_TOKENS = 2 ** 20;

/** Refuses a batch that nobody computes at once. */
export function checkBatch({ batchSize, context }: BatchShape): void {
  const tokens = batchSize * context;
  if (tokens > MOST_TOKENS)
    throw new UserError(
      `a batch of ${batchSize} windows of ${context} tokens has ${tokens} of them, at most ${MOST_TOKENS} are computed at once`,
      { hint: "lower --batch-size; a training step of more has --gradient-accumulation-steps" },
    );
}

/**
 * What a model is fed: the windows of each row, in one static shape, row-major `[batchSize, context]`; further rows, and
 * what is behind a row's windows, have no targets.
 */
export function packWindows(
  texts: readonly TokenizedText[],
  rows: readonly (readonly Window[])[],
  { batchSize, context, isPacked = false }: BatchShape,
) {
  const ids: Int32Array = new Int32Array(batchSize * context);
  /** The token to predict at each place; −1 where none is. */
  const labels: Int32Array = new Int32Array(batchSize * context).fill(-1);
  /** Where each token stands in its window, 0 behind the last one, where rows may hold several. */
  const positions = isPacked && new Int32Array(batchSize * context);
  for (const [row, windows] of rows.entries()) {
    let at = row * context;
    const end = at + context;
    for (const window of windows) {
      const { text, start, length } = window;
      const tokens = texts[text]!.tokens.subarray(start, start + length);
      // The next window, if there is one, begins where this one's last token is.
      ids.set(tokens.subarray(0, end - at), at);
      if (positions) for (let i = at; i < end; i++) positions[i] = i < at + length ? i - at : 0;
      // The input before a token predicts it.
      for (const i of scoredPlaces(texts[text]!, window)) labels[at + i - 1] = tokens[i]!;
      at += numInputs(window);
    }
  }
  return { ids, labels, ...(positions && { positions }), numTargets: numScored(rows.flat()) };
}
