// Families by the `model_type` of config.json.

import { nearest, UserError } from "../core/errors.ts";
import type { Family, Model } from "./architecture.ts";
import { ConfigReader, readSizes } from "./config.ts";
import { decoder } from "./decoder.ts";
import { gpt2 } from "./gpt2.ts";
import { gpt_neox } from "./gpt_neox.ts";
import { llama } from "./llama.ts";
import { mistral } from "./mistral.ts";
import { qwen2 } from "./qwen2.ts";
import { qwen3 } from "./qwen3.ts";

export type { Model, WeightGroup } from "./architecture.ts";
export type { ModelConfig } from "./config.ts";

const families: Readonly<Record<string, Family>> = { gpt2, llama, gpt_neox, mistral, qwen2, qwen3 };

/** Reads a config.json, whose path is for messages; refuses what is not implemented by name. */
export function readModel(path: string, json: Readonly<Record<string, unknown>>): Model {
  const reader = new ConfigReader(path, json);
  const modelType = reader.text("model_type");
  const known = Object.keys(families);
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
  const family = families[modelType]!;
  const config = new ConfigReader(path, json, family.aliases);
  const sizes = readSizes(config, family);
  const settings = { ...sizes, ...family.readSettings(config, sizes) };
  for (const start of ["rope_", "sliding_window", "layer_types"]) config.refuseUnread(start);
  return decoder(family, settings);
}
