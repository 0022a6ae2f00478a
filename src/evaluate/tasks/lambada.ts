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
import { contextOf, type Task } from "../evaluation.ts";
import type { Conditions, LambadaResult } from "../results.ts";
import type { WindowLoss } from "../scorer.ts";

export const lambada: Task<LambadaResult> = {
  async plan(opened, split, { field, windows: limit, context: asked, ...options }) {
    if (split.format === "bin")
      throw new UserError("lambada needs text, a token file has no words");
    if (options.stride ?? options.convention)
      throw new UserError("lambada scores whole documents: no stride and no convention");
    const context = contextOf(opened, asked ?? opened.model.config.maxPositions);
    const tokenizer = await tokenizerOf(opened);
    const hash = createHash("sha256");
    const texts: Tokens[] = [];
    const windows: Window[] = [];
    let document = "";
    for await (const { text, isLast } of readTexts(split, field)) {
      options.signal?.throwIfAborted();
      document += text;
      if (!isLast) continue;
      hash.update(texts.length > 0 ? `\0${document}` : document);
      const { tokens, target } = encodeTarget(document, tokenizer);
      document = "";
      // The last token is predicted, not seen.
      const start = Math.max(0, tokens.length - context - 1);
      const numTargets = tokens.length - target;
      if (numTargets < 1 || numTargets > context)
        throw new UserError(
          `${split.description}: the last word of document ${texts.length + 1} has ${numTargets} tokens, expected 1 to ${context}`,
        );
      const [length, scoreFrom] = [tokens.length - start, target - start];
      windows.push({ text: texts.length, start, length, scoreFrom });
      texts.push(tokens);
    }
    if (windows.length === 0) throw new UserError(`${split.description} holds no document`);
    const chosen = evenSubset(windows, limit);
    const conditions = {
      task: "lambada",
      context,
      dataSha256: hash.digest("hex"),
      numTokens: numScored(chosen),
    } as const;
    const groups = groupsByLength(chosen, context);
    return { texts, groups, needsArgmax: true, conditions, resultOf: resultWith(conditions) };
  },
  summary: (result) => [
    ["accuracy", withError(result.accuracy, result.accuracyStandardError)],
    ["perplexity", withError(result.perplexity, result.perplexityStandardError)],
    ["documents", result.numDocuments],
    ["tokens scored", result.numTokens],
  ],
};

const resultWith =
  (conditions: Conditions & { readonly task: "lambada" }) =>
  (losses: readonly WindowLoss[], modelSha256: string): LambadaResult => {
    const isRight = losses.map(({ isArgmax }) => Number(isArgmax!.every(Boolean)));
    const [accuracy, nats] = [estimateMean(isRight), estimateMean(losses.map(({ nats }) => nats))];
    const perplexity = Math.exp(nats.mean);
    return {
      ...conditions,
      accuracy: accuracy.mean,
      accuracyStandardError: accuracy.standardError,
      perplexity,
      // That of the mean times the exponential's slope; the harness draws bootstrap samples.
      perplexityStandardError: nats.standardError && perplexity * nats.standardError,
      numDocuments: losses.length,
      modelSha256,
    };
  };

/** A document's tokens, and the first of them that is of its last word. */
function encodeTarget(document: string, tokenizer: Tokenizer) {
  const text = document.includes(" ") ? document : ` ${document}`;
  // All spaces before the last word are the target's: tokenizers join them to what follows.
  const before = tokenizer.encode(text.slice(0, text.lastIndexOf(" ")).trimEnd());
  const prefix = before.length > 0 ? tokenizer.prefix : somePrefix(tokenizer);
  const tokens = Uint32Array.from([...prefix, ...tokenizer.encode(text)]);
  return { tokens, target: prefix.length + before.length };
}

/** Windows of similar length together, with at most half as much room again. */
function groupsByLength(windows: readonly Window[], context: number) {
  const groups = new Map<number, Window[]>();
  for (const window of windows) {
    const step = 2 ** Math.max(4, Math.floor(Math.log2(window.length)) - 1);
    const places = Math.min(context, Math.ceil((window.length - 1) / step) * step);
    groups.set(places, groups.get(places) ?? []);
    groups.get(places)!.push(window);
  }
  return [...groups].map(([context, windows]) => ({ context, windows }));
}

const withError = (value: number, error: number | null) =>
  value.toPrecision(5) + (error === null ? "" : ` ± ${error.toPrecision(2)}`);
