// Options that several commands have.

import { device, flag, maybe, needed, oneOf, preset, text, wholeNumberOr } from "./values.ts";

export const shared = {
  model: needed(
    text("model"),
    "folder of a model, run or adapter, Hugging Face id[@revision] or name",
  ),
  adapter: maybe(text("folder"), "temperatures to put on the model"),
  data: needed(text("data"), "file, folder, pattern, Hugging Face id[:config][@split] or name"),
  textColumn: text("name").nullable().default(null).meta({
    description: "column that holds the text (default: text, or the only one in parquet)",
  }),
  nullRows: preset(
    oneOf(["error", "skip"], "what"),
    "error",
    "what to do with rows without a text",
  ),
  device: preset(device(), "auto", "where to compute"),
  threads: preset(wholeNumberOr("auto", 1), "auto", "processor threads; auto: the physical cores"),
  json: flag("print one JSON document"),
} as const;
