// A model that was opened, and what of it an adapter's files hold: values, wherever the files were.

import { encodeFloats } from "../core/dtype.ts";
import { UserError } from "../core/errors.ts";
import type { JsonObject } from "../core/json.ts";
import { fixedShape, sizeOf } from "../core/shape.ts";
import type { Checkpoint, TensorInfo, TensorSource } from "../files/safetensors.ts";
import { type InsertionKind, type Insertions, kindOf } from "../insertions/kinds.ts";
import type { Model } from "../models/index.ts";
import type { Quantization } from "./blocks.ts";

/** A model as it lies on disk, ready to be built as a graph, with what is inserted of each kind. */
export interface OpenedModel extends Insertions {
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
  /** How its matrices are quantised, and the weights that are computed with instead of those above, which were stored. */
  readonly quantized?: {
    readonly spec: Quantization;
    readonly weights: ReadonlyMap<string, TensorInfo>;
  };
  /** The folder of the adapter, or of the checkpoint of a run, that was put on the base. */
  readonly adapter?: string;
  /** The file of the chat template that its adapter was trained with, which wins over the folder's. */
  readonly chatTemplate?: string;
  /** The folder of the run that made it. */
  readonly run?: string;
}

/** The model that something was put on, and the flags by which it was quantised. */
export type BaseIdentity = Readonly<
  Partial<Record<"name" | "revision" | "sha256" | "quantized", string>>
>;

/** The content of an adapter's config file. */
export function adapterJson(kind: InsertionKind, opened: OpenedModel, base: BaseIdentity) {
  const fields = Object.entries(kindOf(kind).baseKeys) as [keyof BaseIdentity, string][];
  const stated = Object.fromEntries(fields.map(([field, key]) => [key, base[field]]));
  return { ...opened[kind]!.insertion.toJson(opened.model), ...stated };
}

/** In the metadata of an adapter's tensors, for PEFT's config has no place for the base's checksum. */
export const BASE_SHA256 = "ssa_base_sha256";
export const BASE_QUANTIZED = "ssa_base_quantized";

/** Number of parameters of the base; a tied output embedding counts once. */
export const countParameters = ({ weights }: Model): number =>
  [...weights.values()].reduce((count, shape) => count + sizeOf(shape), 0);

/** What is inserted of a kind as F32 tensors; none where the model has none. */
export function insertedTensors(kind: InsertionKind, opened: OpenedModel): TensorSource[] {
  const { [kind]: inserted, model } = opened;
  return [...(inserted?.insertion.parameters(model) ?? [])].map(([name, { shape }]) => ({
    name: kindOf(kind).prefix + name,
    dtype: "F32",
    shape: fixedShape(shape),
    data: encodeFloats("F32", inserted!.values.get(name)!),
  }));
}

/** Longest default context: longer ones cost memory that nobody asked for. */
const DEFAULT_CONTEXT = 1024;

/** The tokens that the model sees at once: what was asked for, within the model's length. */
export function contextOf({ model, folder }: OpenedModel, asked: number | undefined): number {
  const { maxPositions } = model.config;
  if (asked === undefined) return Math.min(maxPositions, DEFAULT_CONTEXT);
  if (asked <= maxPositions && asked >= 2) return asked;
  throw new UserError(`a context of ${asked} tokens does not fit ${folder}`, {
    hint: `the model takes 2 to ${maxPositions} tokens`,
  });
}
