// What a model folder holds, from headers alone.

import { existsSync } from "node:fs";
import { stat } from "node:fs/promises";
import { join } from "node:path";
import { countParameters, openModel, type OpenOptions } from "../model/open.ts";
import type { ModelConfig } from "../models/index.ts";
import { addedParameters } from "../train/groups.ts";

export interface Inspection {
  readonly modelType: string;
  readonly config: ModelConfig;
  readonly parameters: {
    /** Of the base; a tied output embedding counts once. */
    readonly total: number;
    readonly groups: Readonly<Record<string, number>>;
  };
  /** Number of stored tensors by number format. */
  readonly dtypes: Readonly<Record<string, number>>;
  readonly files: readonly string[];
  readonly sizeBytes: number;
  readonly tokenizer: string | null;
  readonly isAugmented: boolean;
  readonly temperatures: {
    readonly parameters: number;
    readonly share: number;
    readonly spec: object;
    readonly description: string;
  } | null;
  readonly tensors: readonly {
    readonly name: string;
    readonly dtype: string;
    readonly shape: readonly number[];
  }[];
}

/** Reads headers and configs only (and an augmented model's temperatures): instant at any size. */
export async function inspectModel(
  folder: string,
  options: Pick<OpenOptions, "resolveBase"> = {},
): Promise<Inspection> {
  const opened = await openModel(folder, options);
  const { model, configJson, checkpoint, temperatures, folder: path } = opened;
  const total = countParameters(model);
  const groups: Record<string, number> = {};
  for (const [name, shape] of model.weights) {
    const size = shape.reduce<number>((product, dim) => product * Number(dim), 1);
    const group = model.groupOf(name);
    groups[group] = (groups[group] ?? 0) + size;
  }
  const dtypes: Record<string, number> = {};
  for (const { dtype } of checkpoint.tensors.values()) dtypes[dtype] = (dtypes[dtype] ?? 0) + 1;
  const sizes = await Promise.all(checkpoint.files.map(async (file) => (await stat(file)).size));
  const added = addedParameters(temperatures?.values);
  const tokenizer = ["tokenizer.json", "tokenizer.model", "vocab.json"];
  return {
    modelType: String(configJson["model_type"]),
    config: model.config,
    parameters: { total, groups },
    dtypes,
    files: checkpoint.files,
    sizeBytes: sizes.reduce((sum, size) => sum + size, 0),
    tokenizer: tokenizer.find((name) => existsSync(join(path, name))) ?? null,
    isAugmented: temperatures !== undefined,
    temperatures: temperatures
      ? {
          parameters: added,
          share: added / total,
          spec: temperatures.insertion.spec,
          description: temperatures.insertion
            .describe(model)
            .map(({ place, form }) => `${place}: ${form}`)
            .join("; "),
        }
      : null,
    tensors: [...checkpoint.tensors.values()].map(({ name, dtype, shape }) => ({
      name,
      dtype,
      shape,
    })),
  };
}
