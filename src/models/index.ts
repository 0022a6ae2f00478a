// Architectures by the `model_type` of config.json.

import { nearest, UserError } from "../core/errors.ts";
import { applyConfig, type Model } from "./architecture.ts";
import { ConfigReader } from "./config.ts";
import { gpt2 } from "./gpt2.ts";
import { gpt_neox } from "./gpt_neox.ts";
import { llama } from "./llama.ts";

export type { Model, WeightGroup } from "./architecture.ts";
export type { ModelConfig } from "./config.ts";

const architectures: Readonly<Record<string, (reader: ConfigReader) => Model>> = {
  gpt2: (reader) => applyConfig(gpt2, reader),
  llama: (reader) => applyConfig(llama, reader),
  gpt_neox: (reader) => applyConfig(gpt_neox, reader),
};

/** Reads a config.json, whose path is for messages; refuses what is not implemented by name. */
export function readModel(path: string, json: Readonly<Record<string, unknown>>): Model {
  const reader = new ConfigReader(path, json);
  const modelType = reader.text("model_type");
  const known = Object.keys(architectures);
  if (!known.includes(modelType)) {
    const guess = nearest(modelType, known);
    throw new UserError(`${path}: model_type "${modelType}" is not supported`, {
      hint: `supported: ${known.join(", ")}${guess ? ` (did you mean ${guess}?)` : ""}`,
    });
  }
  if (reader.has("quantization_config"))
    throw new UserError(`${path}: quantized checkpoints are not supported`, {
      hint: "use the checkpoint that it was quantized from (F32, F16 or BF16 weights)",
    });
  return architectures[modelType]!(reader);
}
