// Named ways to measure perplexity, so that a number can be compared with a published one.

import { didYouMean, UserError } from "../core/errors.ts";
import type { CorpusOptions } from "./corpus.ts";
import type { Tokenizer } from "./tokenizer/tokenizer.ts";
import type { WindowRule } from "./windows.ts";

export interface Convention {
  readonly name: string;
  /** What is put between rows to make one text of them, where that is not made pages of. */
  readonly separator: string;
  /** Whether the text is cut into WikiText pages and detokenized. */
  readonly pages: boolean;
  /** What is in front of a text: what the tokenizer puts there, or, where that is nothing, the end-of-text token. */
  readonly prefix: "tokenizer" | "end-of-text";
  /** Most tokens that a window may have, and its stride where that is not the context. */
  readonly maxContext: number;
  readonly stride: number | undefined;
  readonly hasFinalTarget: boolean;
  readonly tail: WindowRule["tail"];
  /** What the perplexity to be compared is per. */
  readonly divisor: "tokens" | "words";
}

// Rows joined by blank lines, windows of the whole context side by side.
const joinedRows = {
  separator: "\n\n",
  pages: false,
  prefix: "tokenizer",
  maxContext: Infinity,
  stride: undefined,
  hasFinalTarget: false,
  tail: "keep",
  divisor: "tokens",
} as const;

export const conventions: readonly Convention[] = [
  { ...joinedRows, name: "hf-disjoint" },
  { ...joinedRows, name: "hf-stride", stride: 512 },
  // Blocks of 2,048 tokens, the last partial one dropped.
  { ...joinedRows, name: "gptq", maxContext: 2048, tail: "drop" },
  // WikiText pages, detokenized, every token scored; perplexity per original word.
  {
    ...joinedRows,
    name: "lm-eval",
    pages: true,
    prefix: "end-of-text",
    hasFinalTarget: true,
    tail: "backfill",
    divisor: "words",
  },
];

export function conventionByName(name: string): Convention {
  const names = conventions.map((convention) => convention.name);
  const found = conventions[names.indexOf(name)];
  if (found) return found;
  throw new UserError(`no convention "${name}", only ${names.join(", ")}`, {
    hint: didYouMean(name, names),
  });
}

/** How a convention reads data. */
export function corpusOptions(
  { separator, pages, prefix }: Convention,
  tokenizer: Tokenizer,
): Pick<CorpusOptions, "separator" | "pages" | "prefix"> {
  const { prefix: own, endOfText } = tokenizer;
  const isBare = prefix === "end-of-text" && own.length === 0 && endOfText !== undefined;
  return { separator, pages, prefix: isBare ? [endOfText] : own };
}

/** How a convention cuts windows for a model that sees at most `maxContext` tokens. */
export function windowRule(convention: Convention, maxContext: number): WindowRule {
  const context = Math.min(maxContext, convention.maxContext);
  const { stride = context, hasFinalTarget, tail } = convention;
  return { context, stride, hasFinalTarget, tail };
}

/** The windows without a named convention: side by side where the stride is the context. */
export function plainWindowRule(context: number, stride = context): WindowRule {
  return { context, stride, hasFinalTarget: false, tail: "keep" };
}
