// Options that several commands have.

import { device, flag, maybe, needed, preset, text, wholeNumberOr } from "./values.ts";

export const shared = {
  model: needed(
    text("model"),
    "folder of a model, run or adapter, Hugging Face id[@revision] or name",
  ),
  adapter: maybe(text("folder"), "temperatures to put on the model"),
  data: needed(text("data"), "file, folder, Hugging Face id[:config][@split] or name"),
  textColumn: preset(text("name"), "text", "column with the text in data that has columns"),
  device: preset(device(), "auto", "where to compute"),
  threads: preset(wholeNumberOr("auto", 1), "auto", "processor threads; auto: the physical cores"),
  json: flag("print one JSON document"),
} as const;
