// Options that several commands have.

import { device, flag, maybe, needed, preset, text, wholeNumberOr } from "./values.ts";

export const shared = {
  model: needed(
    text("model"),
    "model, run or adapter folder, Hugging Face id[@revision] or embedded name",
  ),
  adapter: maybe(text("folder"), "temperatures to put on the model"),
  data: needed(text("data"), "file, folder, Hugging Face id[:config][@split] or embedded name"),
  textColumn: preset(text("name"), "text", "column with the text in data that has columns"),
  device: preset(device(), "auto", "where to compute, e.g. cpu, webgpu, cuda or cuda:1"),
  threads: preset(
    wholeNumberOr("auto", 1),
    "auto",
    "processor threads; auto is the physical cores",
  ),
  json: flag("print one JSON document"),
} as const;
