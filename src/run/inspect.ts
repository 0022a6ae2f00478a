// What a model holds, from headers alone.

import { existsSync } from "node:fs";
import { stat } from "node:fs/promises";
import { join } from "node:path";
import { sizeOf } from "../core/shape.ts";
import { countParameters, openModel, type OpenOptions } from "../model/open.ts";
import type { Inserted } from "../insertions/insertion.ts";
import { type InsertionKind, insertionsOf } from "../insertions/kinds.ts";
import { addedParameters } from "../train/groups.ts";

export type Inspection = Awaited<ReturnType<typeof inspectModel>>;

/** Reads headers and configs only (and an augmented model's temperatures): instant at any size. */
export async function inspectModel(name: string, options: OpenOptions = {}) {
  const opened = await openModel(name, options);
  const { model, configJson, checkpoint, temperatures, lora, folder } = opened;
  const stored = [...checkpoint.tensors.values()];
  const total = countParameters(model);
  const about = (kind: InsertionKind, inserted: Inserted) => {
    const added = addedParameters(opened, kind);
    const described = inserted.insertion
      .describe(model)
      .map(({ place, form }) => `${place}: ${form}`);
    return { parameters: added, share: added / total, description: described.join("; ") };
  };
  const sizes = await Promise.all(checkpoint.files.map(async (file) => (await stat(file)).size));
  const tokenizer = ["tokenizer.json", "tokenizer.model", "vocab.json"];
  const weights = [...model.weights];
  const groups = weights.map(([name, shape]) => [model.groupOf(name), sizeOf(shape)] as const);
  return {
    modelType: String(configJson["model_type"]),
    config: model.config,
    /** Of the base; a tied output embedding counts once. */
    parameters: { total, groups: sums(groups) },
    /** Number of stored tensors by number format. */
    dtypes: sums(stored.map(({ dtype }) => [dtype, 1])),
    files: checkpoint.files,
    sizeBytes: sizes.reduce((sum, size) => sum + size, 0),
    tokenizer: tokenizer.find((name) => existsSync(join(folder, name))) ?? null,
    isAugmented: insertionsOf(opened).length > 0,
    temperatures: temperatures
      ? { ...about("temperatures", temperatures), spec: temperatures.insertion.spec }
      : null,
    lora: lora ? about("lora", lora) : null,
    tensors: stored.map(({ name, dtype, shape }) => ({ name, dtype, shape })),
  };
}

/** The amounts of each key together. */
function sums(amounts: Iterable<readonly [string, number]>): Record<string, number> {
  const all: Record<string, number> = {};
  for (const [key, amount] of amounts) all[key] = (all[key] ?? 0) + amount;
  return all;
}
