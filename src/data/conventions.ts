// Named ways to measure perplexity, so that a number can be compared with a published one.

import type { CorpusOptions } from "./corpus.ts";
import type { Tokenizer } from "./tokenizer/tokenizer.ts";
import type { WindowRule } from "./windows.ts";

interface Convention {
  /** What is put between rows to make one text of them, where that is not made pages of. */
  readonly separator: string;
  /** Whether the text is cut into WikiText pages and detokenized; perplexity per original word counts then. */
  readonly pages: boolean;
  /** Whether a text whose tokenizer puts nothing in front gets BOS there, or EOS where the model has no BOS. */
  readonly alwaysPrefixed: boolean;
  /** Most tokens that a window may have, and its stride where that is not the context. */
  readonly maxContext: number;
  readonly stride?: number;
  readonly hasFinalTarget: boolean;
  readonly tail: WindowRule["tail"];
}

// Rows joined by blank lines, windows of the whole context side by side.
const joinedRows: Convention = {
  separator: "\n\n",
  pages: false,
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
  // WikiText pages, detokenized, every token scored.
  "lm-eval": {
    ...joinedRows,
    pages: true,
    alwaysPrefixed: true,
    hasFinalTarget: true,
    tail: "backfill",
  },
} satisfies Readonly<Record<string, Convention>>;

export type ConventionName = keyof typeof conventions;

/** How a convention reads data. */
export function corpusOptions(
  name: ConventionName,
  { prefix, beginOfText, endOfText }: Tokenizer,
): Pick<CorpusOptions, "separator" | "pages" | "prefix"> {
  const { separator, pages, alwaysPrefixed } = conventions[name];
  const first = beginOfText ?? endOfText;
  const isBare = alwaysPrefixed && prefix.length === 0 && first !== undefined;
  return { separator, pages, prefix: isBare ? [first] : prefix };
}

/** How a convention, or none, cuts windows for a model that sees at most `maxContext` tokens. */
export function windowRule(
  name: ConventionName | undefined,
  maxContext: number,
  asked?: number,
): WindowRule {
  const convention = name === undefined ? joinedRows : conventions[name];
  const context = Math.min(maxContext, convention.maxContext);
  const { stride = context, hasFinalTarget, tail }: Convention = convention;
  return { context, stride: asked ?? stride, hasFinalTarget, tail };
}
