// Builds an opened model as a graph: base weights and temperatures become parameters, or inputs where they train.
// B = batch, T = sequence, D = hidden, V = vocabulary

import { type Precision, precisions, toInt64 } from "../core/dtype.ts";
import { invariant } from "../core/errors.ts";
import type { Shape } from "../core/shape.ts";
import type { Batch } from "../data/windows.ts";
import type { Feeds, Weight } from "../engines/engine.ts";
import { cast, input, matMul, mul, parameter } from "../graph/build.ts";
import type { Tensor } from "../graph/tensor.ts";
import type { KeptPart } from "../models/architecture.ts";
import type { AttentionHooks } from "../nn/attention.ts";
import { tokenScores } from "../nn/loss.ts";
import { fixedPositions, type Positions } from "../nn/positions.ts";
import { smallTiles, type Tiling } from "../nn/tiling.ts";
import type { Inserted, Observer } from "../insertions/insertion.ts";
import { type OpenedModel, weightDtype } from "./model.ts";

/** Of the tokens in one run of a graph. */
export interface BatchShape {
  readonly batchSize: number;
  /** Tokens of each sequence. */
  readonly context: number;
}

export interface ForwardGraph {
  /** I64 [B, T], named `ids`. */
  readonly ids: Tensor;
  /** After the last norm, [B, T, D]. */
  readonly hidden: Tensor;
  /** Output embedding, [V, D]. */
  readonly head: Tensor;
  /** Inputs that stand for the tensors asked to train, by canonical name. */
  readonly trainable: ReadonlyMap<string, Tensor>;
  /** What the backward pass should find in memory, if activations are recomputed; `hidden` is the last. */
  readonly kept: readonly { readonly tensor: Tensor; readonly part: KeptPart }[];
  readonly tiling: Tiling;
}

export interface BuildOptions {
  /** Names of weights and temperatures that are fed at each run instead of being bound. */
  readonly trainable?: ReadonlySet<string>;
  readonly observe?: Observer;
  readonly precision?: Precision;
  /** As the engine wants it; small tiles by default. */
  readonly tiling?: Tiling;
}

/** The forward pass of a window that starts at position 0. */
export function buildForward(
  opened: OpenedModel,
  { batchSize, context }: BatchShape,
  options: BuildOptions = {},
): ForwardGraph {
  const ids = input("ids", [batchSize, context], "I64");
  return buildWith(opened, ids, fixedPositions(context, options.tiling), options);
}

/** The forward pass of given tokens at given positions, with further hooks. */
export function buildWith(
  opened: OpenedModel,
  ids: Tensor,
  positions: Positions,
  {
    trainable: trained = new Set(),
    observe,
    precision = "fp32",
    tiling = smallTiles,
  }: BuildOptions,
  hooks: AttentionHooks = {},
): ForwardGraph {
  const { model, weights, temperatures } = opened;
  const trainable = new Map<string, Tensor>();
  const tensors = new Map<string, Tensor>();
  const tensorOf = (name: string, shape: Shape, bound: () => Tensor): Tensor => {
    let tensor = tensors.get(name);
    if (!tensor) {
      tensor = trained.has(name) ? input(name, shape, "F32") : bound();
      tensors.set(name, tensor);
      if (trained.has(name)) trainable.set(name, tensor);
    }
    return tensor;
  };
  const weight = (name: string) => {
    const shape = model.weights.get(name);
    invariant(shape, `no weight ${name}`);
    const tensor = tensorOf(name, shape, () =>
      parameter(name, shape, weightDtype(weights.get(name)!)),
    );
    return cast(tensor, model.groupOf(name) === "norms" ? "F32" : precisions[precision]);
  };
  const kept: { tensor: Tensor; part: KeptPart }[] = [];
  const keep = (tensor: Tensor, part: KeptPart) => {
    kept.push({ tensor, part });
    return tensor;
  };
  const hidden = model.forward({
    weight,
    ids,
    positions,
    hooks: { ...hooks, ...(temperatures && insertedHooks(temperatures)) },
    keep,
  });
  keep(hidden, "stream");
  return { ids, hidden, head: weight(headName(opened)), trainable, kept, tiling };

  function insertedHooks({ insertion }: Inserted): AttentionHooks {
    const parameters = insertion.parameters(model);
    const parameterOf = (name: string) => {
      const { shape } = parameters.get(name)!;
      return tensorOf(name, shape, () => parameter(name, shape, "F32"));
    };
    return insertion.hooks(model, { parameter: parameterOf, positions, observe });
  }
}

/** A batch as the inputs `ids`, `labels` and `weights` (1 for a target, 0 for none). */
export function batchFeeds({ ids, labels }: Pick<Batch, "ids" | "labels">): Feeds {
  return {
    ids: toInt64(ids),
    // Any valid id will do where there is no target.
    labels: toInt64(labels.map((label) => Math.max(0, label))),
    weights: new Float32Array(labels.map((label) => (label < 0 ? 0 : 1))),
  };
}

/** Nats of all tokens together, in double precision. */
export function totalNats(nats: Float32Array): number {
  let total = 0;
  for (let i = 0; i < nats.length; i++) total += nats[i]!;
  return total;
}

/** -ln p of every label, [B, T], zero where there is no target. */
export function natsOf({ hidden, head, ids, tiling }: ForwardGraph): Tensor {
  const labels = input("labels", ids.shape, "I64");
  const weights = input("weights", ids.shape, "F32");
  return mul(tokenScores(hidden, head, labels, tiling).nats, weights);
}

/** How many tokens are likelier than each label, [B, T]; says nothing where there is no target. */
export function ranksOf({ hidden, head, ids, tiling }: ForwardGraph): Tensor {
  return tokenScores(hidden, head, input("labels", ids.shape, "I64"), tiling).ranks;
}

/** Logits of every token, F32 [B, T, V]. */
export function logitsOf({ hidden, head }: ForwardGraph): Tensor {
  return cast(matMul(hidden, head, { transposeB: true }), "F32");
}

/** What the parameters are bound to: ranges of the checkpoint's files, and the temperatures' values. */
export function boundWeights({ weights, temperatures }: OpenedModel): Map<string, Weight> {
  const bound = new Map<string, Weight>(weights);
  for (const [name, { buffer, byteOffset, byteLength }] of temperatures?.values ?? [])
    bound.set(name, new Uint8Array(buffer, byteOffset, byteLength));
  return bound;
}

/** The canonical name of the output embedding's weight. */
export function headName({ model }: OpenedModel): string {
  return model.config.isTied ? model.inputEmbedding : model.outputEmbedding;
}
