// Options that commands share: how rows of data are read, and how a base is quantised.

import * as z from "zod";
import { BUILT_IN_TEMPLATES, LOSS_ON } from "../data/chat.ts";
import { ROW_FIELDS, ROW_FORMATS } from "../data/readers/rows.ts";
import { flag, listed, oneOf, orNull, preset, text, type Values, worded } from "./values.ts";

/** Fields by the columns that hold them; `prompt=question,completion=answer` for the same. */
const columns = () => {
  const read = (given: unknown) =>
    typeof given === "string"
      ? Object.fromEntries(given.split(",").map((pair) => `${pair.trim()}=`.split(/\s*=\s*/, 2)))
      : given;
  const fields = Object.fromEntries(ROW_FIELDS.map((name) => [name, text("column").optional()]));
  type Columns = Record<(typeof ROW_FIELDS)[number], z.ZodOptional<z.ZodString>>;
  const kind = z.strictObject(fields as Columns);
  const expected = `names of columns by field: ${listed(ROW_FIELDS)}`;
  return worded(z.preprocess(read, kind), expected, "field=column,…", ROW_FIELDS);
};

const templates = listed(BUILT_IN_TEMPLATES);
const errorOrSkip = oneOf(["error", "skip"], "what");
const orSkip = errorOrSkip.meta({ short: ["--skip-bad-rows", "skip"] });

/** How rows of data are read. */
export const rowOptions = {
  textColumn: orNull(text("name"), "the text's column (default: text, or parquet's only one)"),
  format: preset(oneOf(["auto", ...ROW_FORMATS], "kind"), "auto", "what rows are; auto: by keys"),
  columns: orNull(columns(), "names of columns, as prompt=question,completion=answer"),
  chatTemplate: orNull(text("name"), `a file, ${templates} (default: the model's)`),
  lossOn: preset(oneOf(LOSS_ON, "what"), "answers", "what of prompts and conversations counts"),
  badRows: preset(orSkip, "error", "what rows that cannot be read do"),
  nullRows: preset(errorOrSkip, "error", "what rows without a text do"),
} as const;

const block = worded(z.literal([32, 64, 128]), "32, 64 or 128", "n");

/** How a base is quantised. */
export const quantizeOptions = {
  quantize: preset(oneOf(["none", "q4", "q8"], "type"), "none", "blocks of integers for matrices"),
  quantizeBlock: preset(block, 32, "values of a row that have a factor in common"),
  quantizeZeroPoints: flag("a zero point for each block, for values that are not around zero"),
  quantizeHead: flag("quantise the embeddings as well, with 8 bits"),
} as const;

export type QuantizeOptions = Values<typeof quantizeOptions>;
