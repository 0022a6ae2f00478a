// What an evaluation may be asked: flags of `ssa eval`, and options of the library, checked alike.

import * as z from "zod";
import { type ConventionName, conventions } from "../data/windows.ts";
import { quantizeOptions, rowOptions } from "./common.ts";
import { maybe, oneOf, percentage, preset, shared, text, wholeNumber } from "./values.ts";
import { share, wholeNumberOr, wholeNumbers } from "./values.ts";

const names = Object.keys(conventions) as ConventionName[];

export const evaluationOptions = {
  holdOut: maybe(share(), "score what finetune with this share holds out of the data"),
  maxTokens: maybe(wholeNumber(1), "most tokens read of the data, as of finetune (default: all)"),
  adapter: shared.adapter,
  context: maybe(wholeNumber(2), "tokens of a window (default: the model's, at most 1024)"),
  stride: maybe(wholeNumber(1), "tokens between windows (default: the context)"),
  windows: preset(wholeNumberOr("all", 1), "all", "score an even, fixed subset, or all"),
  batchSize: preset(wholeNumber(1), 1, "windows at a time; the result does not depend on it"),
  convention: maybe(oneOf(names, "name"), "a published way to measure"),
  ...rowOptions,
  ...quantizeOptions,
  device: shared.device,
  threads: shared.threads,
  baseline: maybe(text("what"), "compare with a model, a report.json or a saved baseline"),
  maxIncrease: maybe(percentage(), "allowed rise of perplexity (default: 0%)"),
} as const;

export const passkeyOptions = {
  lengths: maybe(
    wholeNumbers(1, 1 << 24, "of tokens"),
    "of passkey's documents (default: the context, 1/2, 1/4 and 1/8 of it)",
  ),
  depths: maybe(
    wholeNumbers(0, 100, "from 0 to 100"),
    "percent of the text before the key (default: 0,25,50,75,100)",
  ),
  trials: maybe(wholeNumber(1), "documents of each length and depth (default: 10)"),
  seed: maybe(wholeNumber(0), "seed of passkey's keys (default: 0)"),
} as const;

const passkey = z.strictObject(passkeyOptions).optional();

/** Of a program, which has passkey's in an object. */
export const evaluationShape = {
  model: shared.model,
  ...evaluationOptions,
  passkey: passkey.meta({ expected: "{lengths, depths, trials, seed}" }),
} as const;
