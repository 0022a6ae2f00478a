// A model with its temperatures, wherever it came from, and what the rest needs to know of it.

import { DTYPE_BYTES, type Dtype } from "../core/dtype.ts";
import type { Checkpoint, TensorInfo } from "../files/safetensors.ts";
import type { Model } from "../models/index.ts";
import type { Inserted } from "../insertions/insertion.ts";

/** A model as it lies on disk, ready to be built as a graph. */
export interface OpenedModel {
  /** The folder of config, weights and tokenizer (an adapter's base). */
  readonly folder: string;
  readonly configJson: Readonly<Record<string, unknown>>;
  readonly model: Model;
  readonly checkpoint: Checkpoint;
  /** Weights by canonical name. */
  readonly weights: ReadonlyMap<string, TensorInfo>;
  /** Present where the model has temperatures. */
  readonly temperatures?: Inserted;
}

/** Number of parameters of the base; a tied output embedding counts once. */
export function countParameters(model: Model): number {
  let count = 0;
  for (const shape of model.weights.values())
    count += shape.reduce<number>((product, dim) => product * Number(dim), 1);
  return count;
}

/** The number format of a stored weight, which `openModel` has checked. */
export function weightDtype({ dtype }: TensorInfo): Dtype {
  return Object.hasOwn(DTYPE_BYTES, dtype) ? (dtype as Dtype) : "F32";
}
