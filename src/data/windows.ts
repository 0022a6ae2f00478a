// Which tokens are scored in which window. A convention of perplexity is a WindowRule, not code.

import { UserError } from "../core/errors.ts";
import type { Batch } from "./batches.ts";
import { countTargets, putLabels, type TokenizedText } from "./document.ts";

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
 * first token, which nothing predicts; one without any is left out. `limit` keeps so many of them, evenly spread and always the same.
 */
export function evaluationWindows(
  texts: readonly TokenizedText[],
  rule: WindowRule,
  limit = Infinity,
): Window[] {
  const { context, stride } = rule;
  if (!(stride >= 1 && stride <= context)) {
    throw new UserError(`a stride of ${stride} does not fit a context of ${context} tokens`, {
      hint: "the stride is at least 1 and at most the context",
    });
  }
  const windows = texts.flatMap((text, i) => [...textWindows(i, text, rule)]);
  if (windows.length <= limit) return windows;
  return Array.from(
    { length: limit },
    (_, i) => windows[Math.floor(((i + 0.5) * windows.length) / limit)]!,
  );
}

function* textWindows(text: number, tokenized: TokenizedText, rule: WindowRule): Generator<Window> {
  const numTokens = tokenized.tokens.length;
  const span = rule.context + (rule.hasFinalTarget ? 1 : 0);
  let scored = 0;
  for (let start = 0; scored < numTokens; start += rule.stride) {
    const end = Math.min(start + span, numTokens);
    const isShort = end - start < span;
    if (isShort && rule.tail === "drop") return;
    const first = Math.max(scored, start + 1);
    const begin = isShort && rule.tail === "backfill" ? Math.max(0, end - span) : start;
    const numTargets = countTargets(tokenized, first, end);
    const [length, scoreFrom] = [end - begin, first - begin];
    if (numTargets > 0) yield { text, start: begin, length, scoreFrom, numTargets };
    scored = end;
  }
}

export function numScored(windows: readonly Window[]): number {
  return windows.reduce((sum, { numTargets }) => sum + numTargets, 0);
}

export interface WindowBatch extends Batch {
  /** The windows of the first rows; further rows are padding without targets. */
  readonly windows: readonly Window[];
}

/** Windows in batches of one static shape. */
export function* packWindows(
  texts: readonly TokenizedText[],
  windows: readonly Window[],
  { batchSize, context }: { readonly batchSize: number; readonly context: number },
): Generator<WindowBatch> {
  for (let first = 0; first < windows.length; first += batchSize) {
    const chosen = windows.slice(first, first + batchSize);
    const ids = new Int32Array(batchSize * context);
    const labels = new Int32Array(batchSize * context).fill(-1);
    for (const [row, { text, start, length, scoreFrom }] of chosen.entries()) {
      const end = start + length;
      ids.set(texts[text]!.tokens.subarray(start, Math.min(end, start + context)), row * context);
      // The input before a token predicts it.
      const at = row * context + scoreFrom - 1;
      putLabels(labels, at, texts[text]!, start + scoreFrom, end);
    }
    yield { ids, labels, numTargets: numScored(chosen), windows: chosen };
  }
}
