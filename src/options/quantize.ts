// How a base is quantised: options that finetune, compare and eval share.

import * as z from "zod";
import { flag, oneOf, preset, type Values, worded } from "./values.ts";

const block = worded(z.literal([32, 64, 128]), "32, 64 or 128", "n");

export const quantizeOptions = {
  quantize: preset(oneOf(["none", "q4", "q8"], "type"), "none", "blocks of integers for matrices"),
  quantizeBlock: preset(block, 32, "values of a row that have a factor in common"),
  quantizeZeroPoints: flag("a zero point for each block, for values that are not around zero"),
  quantizeHead: flag("quantise the embeddings as well, with 8 bits"),
} as const;

export type QuantizeOptions = Values<typeof quantizeOptions>;
