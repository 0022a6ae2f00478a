// Which tokens are scored in which window. A convention of perplexity is a WindowRule, not code.

import { UserError } from "../core/errors.ts";
import type { Batch } from "./batch.ts";
import type { Tokens } from "./tokens.ts";

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
}

/**
 * The windows over texts of the given lengths. They never cross texts; each scores the tokens that no earlier one did,
 * but not its own first, which nothing predicts. `limit` keeps so many of them, evenly spread and always the same.
 */
export function evaluationWindows(
  textLengths: readonly number[],
  rule: WindowRule,
  limit?: number,
): readonly Window[] {
  const { context, stride } = rule;
  if (!(stride >= 1 && stride <= context)) {
    throw new UserError(`a stride of ${stride} does not fit a context of ${context} tokens`, {
      hint: "the stride is at least 1 and at most the context",
    });
  }
  const windows = textLengths.flatMap((length, text) => [...textWindows(text, length, rule)]);
  return evenSubset(windows, limit);
}

/** So many of the items, evenly spread and always the same. */
export function evenSubset<T>(items: readonly T[], limit = Infinity): readonly T[] {
  if (items.length <= limit) return items;
  return Array.from(
    { length: limit },
    (_, i) => items[Math.floor(((i + 0.5) * items.length) / limit)]!,
  );
}

function* textWindows(text: number, numTokens: number, rule: WindowRule): Generator<Window> {
  const span = rule.context + (rule.hasFinalTarget ? 1 : 0);
  let scored = 0;
  for (let start = 0; scored < numTokens; start += rule.stride) {
    const end = Math.min(start + span, numTokens);
    const isShort = end - start < span;
    if (isShort && rule.tail === "drop") return;
    const first = Math.max(scored, start + 1);
    const begin = isShort && rule.tail === "backfill" ? Math.max(0, end - span) : start;
    if (first < end) yield { text, start: begin, length: end - begin, scoreFrom: first - begin };
    scored = end;
  }
}

export function numScored(windows: readonly Window[]): number {
  return windows.reduce((sum, { length, scoreFrom }) => sum + length - scoreFrom, 0);
}

export interface WindowBatch extends Batch {
  /** The windows of the first rows; further rows are padding without targets. */
  readonly windows: readonly Window[];
}

/** Windows in batches of one static shape. */
export function* packWindows(
  texts: readonly Tokens[],
  windows: readonly Window[],
  { batchSize, context }: { readonly batchSize: number; readonly context: number },
): Generator<WindowBatch> {
  for (let first = 0; first < windows.length; first += batchSize) {
    const chosen = windows.slice(first, first + batchSize);
    const ids = new Int32Array(batchSize * context);
    const labels = new Int32Array(batchSize * context).fill(-1);
    for (const [row, { text, start, length, scoreFrom }] of chosen.entries()) {
      const tokens = texts[text]!.subarray(start, start + length);
      ids.set(tokens.subarray(0, context), row * context);
      // The input before a token predicts it.
      labels.set(tokens.subarray(scoreFrom), row * context + scoreFrom - 1);
    }
    yield { ids, labels, numTargets: numScored(chosen), windows: chosen };
  }
}
