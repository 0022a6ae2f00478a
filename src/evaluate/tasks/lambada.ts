// LAMBADA (Paperno et al., 2016): is the last word of a passage what the model finds likeliest? As the language-model
// evaluation harness measures its `lambada_openai`: the target is all behind the last space of a row's text with that
// space, the context what is before; tokens are those of both together, of which the context's own tokens, as many as it
// has by itself, are not scored. In front is what the tokenizer puts there by itself; where that leaves a target with
// nothing before it, BOS or EOS. What is too long for the model loses its left end.

import { createHash } from "node:crypto";
import { UserError } from "../../core/errors.ts";
import { somePrefix } from "../../data/conventions.ts";
import { readTexts } from "../../data/readers/read-texts.ts";
import type { Tokenizer } from "../../data/tokenizer/tokenizer.ts";
import type { Tokens } from "../../data/tokens.ts";
import { evenSubset, numScored, type Window } from "../../data/windows.ts";
import { tokenizerOf } from "../../model/read-corpus.ts";
import { estimateMean } from "../estimates.ts";
import { contextOf, type EvaluationPlan, type Task } from "../evaluation.ts";
import type { LambadaResult } from "../results.ts";

export const lambada: Task<LambadaResult> = {
  takes: [],
  async plan(opened, split, { field, windows: limit, context: asked, signal }) {
    if (split.format === "bin")
      throw new UserError("lambada needs text, a token file has no words");
    const context = contextOf(opened, asked ?? opened.model.config.maxPositions);
    const tokenizer = await tokenizerOf(opened);
    const hash = createHash("sha256");
    const texts: Tokens[] = [];
    const windows: Window[] = [];
    for await (const document of wholeTexts(readTexts(split, field))) {
      signal?.throwIfAborted();
      hash.update(texts.length > 0 ? `\0${document}` : document);
      const { tokens, target } = encodeTarget(document, tokenizer);
      // The last token is predicted, not seen.
      const start = Math.max(0, tokens.length - context - 1);
      const length = tokens.length - start;
      if (target <= start || target >= tokens.length)
        throw new UserError(
          `${split.description}: document ${texts.length + 1} has ${tokens.length - target} tokens in its last word, expected 1 to ${context}`,
        );
      windows.push({ text: texts.length, start, length, scoreFrom: target - start });
      texts.push(tokens);
    }
    if (windows.length === 0) throw new UserError(`${split.description} holds no document`);
    const dataSha256 = hash.digest("hex");
    return planOf(texts, evenSubset(windows, limit), context, dataSha256);
  },
  summary: (result) => [
    ["accuracy", withError(result.accuracy, result.accuracyStandardError)],
    ["perplexity", withError(result.perplexity, result.perplexityStandardError)],
    ["documents", result.numDocuments],
    ["tokens scored", result.numTokens],
  ],
};

function planOf(
  texts: readonly Tokens[],
  windows: readonly Window[],
  context: number,
  dataSha256: string,
): EvaluationPlan<LambadaResult> {
  const numTokens = numScored(windows);
  const conditions = { task: "lambada", context, dataSha256, numTokens } as const;
  return {
    texts,
    groups: groupsByLength(windows, context),
    needsArgmax: true,
    conditions,
    resultOf(scores, modelSha256) {
      const isRight = scores.map(({ isArgmax }) => Number(isArgmax.every((is) => is === 1)));
      const accuracy = estimateMean(isRight);
      // Of documents, not of tokens.
      const nats = estimateMean(scores.map((score) => score.nats));
      const perplexity = Math.exp(nats.mean);
      return {
        ...conditions,
        accuracy: accuracy.mean,
        accuracyStandardError: accuracy.standardError,
        perplexity,
        // That of the mean, through the exponential's slope; the harness draws bootstrap samples.
        perplexityStandardError:
          nats.standardError === null ? null : perplexity * nats.standardError,
        numDocuments: scores.length,
        modelSha256,
      };
    },
  };
}

/** A document's tokens, and the first of them that is of its last word. */
function encodeTarget(document: string, tokenizer: Tokenizer) {
  const space = document.lastIndexOf(" ");
  const text = space < 0 ? ` ${document}` : document;
  // Spaces before the last one are the target's too: tokenizers join them to what follows.
  const before = tokenizer.encode(text.slice(0, Math.max(0, space)).trimEnd());
  const prefix = before.length > 0 ? tokenizer.prefix : somePrefix(tokenizer);
  const tokens = Uint32Array.from([...prefix, ...tokenizer.encode(text)]);
  return { tokens, target: prefix.length + before.length };
}

/** Windows of similar length together: at most half of a group's places are empty. */
function groupsByLength(windows: readonly Window[], context: number) {
  const groups = new Map<number, Window[]>();
  for (const window of windows.toSorted((a, b) => a.length - b.length)) {
    const step = 2 ** Math.max(4, Math.floor(Math.log2(window.length)) - 1);
    const rounded = Math.min(context, Math.ceil((window.length - 1) / step) * step);
    groups.set(rounded, [...(groups.get(rounded) ?? []), window]);
  }
  return [...groups].map(([context, windows]) => ({ context, windows }));
}

function withError(value: number, error: number | null): string {
  return value.toPrecision(5) + (error === null ? "" : ` ± ${error.toPrecision(2)}`);
}

async function* wholeTexts(pieces: ReturnType<typeof readTexts>): AsyncGenerator<string> {
  let whole = "";
  for await (const { text, isLast } of pieces) {
    whole += text;
    if (!isLast) continue;
    yield whole;
    whole = "";
  }
}
