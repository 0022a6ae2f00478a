// A model by its config.json.

import { unsupported, UserError } from "../core/errors.ts";
import type { JsonObject } from "../core/json.ts";
import { configReader, readSizes } from "./config.ts";
import { decoder, type Model } from "./decoder.ts";
import { families } from "./families.ts";

export type { Model, WeightGroup } from "./decoder.ts";
export type { ModelConfig } from "./config.ts";
export type { FamilyName } from "./families.ts";

/** Reads a config.json, whose path is for messages; refuses what is not implemented by name. */
export function readModel(path: string, json: JsonObject): Model {
  const plain = configReader(path, json);
  const modelType = plain.text("model_type");
  const known = Object.keys(families);
  const family = known.includes(modelType) && families[modelType];
  if (!family) throw unsupported(`${path}: model_type "${modelType}"`, modelType, known);
  if (plain.has("quantization_config") || plain.has("quantization"))
    throw new UserError(`${path}: quantized weights are not read here`, {
      hint: "use the checkpoint that they were quantized from (F32, F16 or BF16 weights)",
    });
  const config = configReader(path, json, family.aliases);
  const sizes = readSizes(config, family);
  const settings = family.readSettings(config, sizes);
  for (const start of ["rope_", "sliding_window", "layer_types"]) config.refuseUnread(start);
  return decoder(family, { ...sizes, ...settings });
}
