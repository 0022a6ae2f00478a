// A model by its config.json.

import { unsupported, UserError } from "../core/errors.ts";
import type { JsonObject } from "../core/json.ts";
import { configReader, readSizes } from "./config.ts";
import { decoder, type Model } from "./decoder.ts";
import { everyLayer, type Family, usual } from "./family.ts";
import * as gpt from "./gpt-families.ts";
import * as llama from "./llama-families.ts";
import { readRotary } from "./settings.ts";

export type { Model, WeightGroup } from "./decoder.ts";
export type { ModelConfig } from "./config.ts";

const rows = { ...gpt, ...llama };
export type FamilyName = keyof typeof rows;
/** By the `model_type` of config.json: what these files export, a row each. */
export const families: Readonly<Record<string, Family>> = rows;

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
  const own = family.readSettings(config, sizes);
  const turns = !own.rotary && !family.embeddings.positions;
  const rotary = turns && { rotary: everyLayer(sizes, readRotary(config, sizes, family.rotary)) };
  for (const start of ["rope_", "sliding_window", "layer_types"]) config.refuseUnread(start);
  return decoder(family, { ...sizes, ...usual, ...own, ...rotary });
}
