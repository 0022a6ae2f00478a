// Which windows of a corpus are scored, and what their losses amount to.

import { UserError } from "../core/errors.ts";
import type { Corpus } from "../data/corpus.ts";
import * as layout from "../data/windows.ts";
import type { Quantization } from "../model/blocks.ts";
import { contextOf, type OpenedModel } from "../model/opened.ts";
import type { EvaluateOptions } from "./evaluation.ts";
import type { Losses } from "./scorer.ts";
import { estimate } from "./statistics.ts";

export type WindowPlan = ReturnType<typeof planWindows>;
export type PerplexityResult = Readonly<ReturnType<WindowPlan["resultOf"]>> & {
  readonly quantized?: Quantization;
};

/** The windows of a corpus, and what their losses amount to. */
export function planWindows(opened: OpenedModel, corpus: Corpus, options: EvaluateOptions) {
  const { context: asked, stride: askedStride, windows: limit, mayPack = true } = options;
  const { convention: name } = options;
  const { texts, numTargets, utf8Bytes, numWords, dataSha256 } = corpus;
  const longest = name && asked === undefined ? opened.model.config.maxPositions : asked;
  const length = contextOf(opened, longest);
  const rule = layout.windowRule(name, length, askedStride);
  const all = layout.evaluationWindows(texts, rule);
  const windows = layout.evenSubset(all, limit);
  if (windows.length === 0)
    throw new UserError("the data holds no token that can be scored", {
      hint: "a text needs at least two tokens",
    });
  const { context, stride } = rule;
  /** `disjoint` (stride = context), `stride`, or a named one. */
  const convention: string = name ?? (stride === context ? "disjoint" : "stride");
  const isPacked = mayPack && layout.isWorthPacking(all, context);
  const numTokens = layout.numScored(windows);
  /** What counts: every token, or of prompts and chats those that are targets. */
  const mask = texts.some(({ isTarget }) => isTarget) ? "targets" : "all";
  const task = "perplexity" as const;
  const conditions = { task, convention, context, stride, mask, dataSha256, numTokens } as const;
  const resultOf = (losses: Losses, modelSha256: string) => {
    const loss = estimate(losses);
    const textNats = loss.lossNats * numTargets;
    return {
      ...conditions,
      ...loss,
      /** Summed nats of the text over ln 2 · UTF-8 bytes, unscored tokens at the mean; null for token files. */
      bitsPerByte: utf8Bytes ? textNats / (Math.LN2 * utf8Bytes) : null,
      /** exp(summed nats / words of the original text); null but for conventions that count words. */
      wordPerplexity: numWords ? Math.exp(textNats / numWords) : null,
      /** Tokens of the scored windows, targets or not. */
      windowTokens: windows.reduce((sum, { length }) => sum + length, 0),
      /** Windows scored, and of how many. */
      windows: windows.length,
      windowsTotal: all.length,
      modelSha256,
    };
  };
  const groups = [{ context, windows, isPacked }];
  const how = { needsArgmax: false, perplexityOf: "tokens" as const };
  return { texts, windows, isPacked, groups, ...how, conditions, resultOf };
}
