// A model with its temperatures, wherever it came from, and what the rest needs to know of it.

import { DTYPE_BYTES, type Dtype } from "../core/dtype.ts";
import { sizeOf } from "../core/shape.ts";
import type { JsonObject } from "../files/json.ts";
import type { Checkpoint, TensorInfo } from "../files/safetensors.ts";
import type { Inserted, Insertion } from "../insertions/insertion.ts";
import type { Model } from "../models/index.ts";

/** A model as it lies on disk, ready to be built as a graph. */
export interface OpenedModel {
  /** What finds it again: a hub id, an embedded name, or its path (an adapter's base; an unfinished run). */
  readonly name: string;
  /** The folder of config, tokenizer and, as a rule, weights (an adapter's base). */
  readonly folder: string;
  readonly configJson: JsonObject;
  readonly model: Model;
  /** The files that its weights are read from. */
  readonly checkpoint: Checkpoint;
  /** Weights by canonical name. */
  readonly weights: ReadonlyMap<string, TensorInfo>;
  /** Present where the model has temperatures. */
  readonly temperatures?: Inserted;
  /** The folder of the adapter, or of the checkpoint of a run, that was put on the base. */
  readonly adapter?: string;
  /** The folder of the run that made it. */
  readonly run?: string;
}

/** The keys of an adapter's ssa_config.json that say which model its temperatures were put on. */
export const baseKeys = {
  /** A Hugging Face id or a path. */
  name: "base_model_name_or_path",
  revision: "base_revision",
  sha256: "base_sha256",
} as const;

export type BaseIdentity = Readonly<Partial<Record<keyof typeof baseKeys, string>>>;

/** The content of an adapter's ssa_config.json. */
export function adapterJson(insertion: Insertion, base: BaseIdentity): JsonObject {
  const fields = Object.entries(baseKeys) as [keyof BaseIdentity, string][];
  const stated = Object.fromEntries(fields.map(([field, key]) => [key, base[field]]));
  return { ...insertion.toJson(), ...stated };
}

/** Number of parameters of the base; a tied output embedding counts once. */
export function countParameters({ weights }: Model): number {
  return [...weights.values()].reduce((count, shape) => count + sizeOf(shape), 0);
}

/** The number format of a stored weight, which `openModel` has checked. */
export function weightDtype({ dtype }: TensorInfo): Dtype {
  return Object.hasOwn(DTYPE_BYTES, dtype) ? (dtype as Dtype) : "F32";
}
