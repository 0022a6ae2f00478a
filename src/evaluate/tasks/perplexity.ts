// Perplexity of texts in windows.

import { readCorpus } from "../../model/places.ts";
import type { Task } from "../evaluation.ts";
import { type PerplexityResult, planWindows } from "../window-plan.ts";

export const perplexity: Task<PerplexityResult> = {
  plan: async (opened, split, options) =>
    planWindows(opened, await readCorpus(opened, split, options), options),
  summary({ windows, windowsTotal, standardError, numTokens, windowTokens, mask, ...result }) {
    const shown = (count: number) => count.toLocaleString("en-US");
    const targets = `${shown(numTokens)} targets of ${shown(windowTokens)}`;
    const error = standardError === null ? "" : ` ± ${standardError.toFixed(4)}`;
    const subset = windows === windowsTotal ? "" : `, an even subset of ${windowsTotal}`;
    return [
      ["perplexity", result.perplexity],
      ["loss", `${result.lossNats.toFixed(5)}${error} nats per token`],
      ["bits per byte", result.bitsPerByte?.toFixed(5) ?? ""],
      ["per word", result.wordPerplexity ?? ""],
      ["tokens scored", mask === "all" ? numTokens : targets],
      ["windows", `${shown(windows)} of ${result.context} tokens${subset}`],
      ["convention", `${result.convention}, stride ${result.stride}`],
    ];
  },
};
