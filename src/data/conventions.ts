// Named ways to measure perplexity, so that a number can be compared with a published one.

import { joinedBy, type Remake } from "./document.ts";
import { wikitextPages } from "./readers/wikitext.ts";
import type { WindowRule } from "./windows.ts";

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
