// Builds an opened model as a graph: base weights and temperatures become parameters, or inputs where they train.
// B = batch, T = sequence, D = hidden, V = vocabulary

import { DTYPE_BYTES, type Dtype, type Precision, precisions, toInt64 } from "../core/dtype.ts";
import { invariant } from "../core/errors.ts";
import type { Shape } from "../core/shape.ts";
import type { Batch, BatchShape } from "../data/windows.ts";
import type { Feeds, Weight } from "../engines/engine.ts";
import { cast, dequantize, input, mul, parameter } from "../graph/build.ts";
import type { Tensor } from "../graph/tensor.ts";
import type { KeptPart } from "../models/decoder.ts";
import type { Hooks } from "../nn/attention.ts";
import { tokenScores, vocabularyLogits } from "../nn/loss.ts";
import { fixedPositions, packedPositions, type Positions } from "../nn/positions.ts";
import { smallTiles, type Tiling } from "../nn/tiling.ts";
import type { TensorInfo } from "../files/safetensors.ts";
import type { Inserted, Observer } from "../insertions/insertion.ts";
import { insertionsOf } from "../insertions/kinds.ts";
import { isBlocked, partsOf } from "./blocks.ts";
import type { OpenedModel } from "./opened.ts";

export type ForwardGraph = ReturnType<typeof buildForward>;

interface BuildOptions {
  /** Names of weights and temperatures that are fed at each run instead of being bound. */
  readonly trainable?: ReadonlySet<string> | undefined;
  readonly observe?: Observer | undefined;
  readonly precision?: Precision;
  /** As the engine wants it; small tiles by default. */
  readonly tiling?: Tiling;
  readonly hooks?: Hooks;
}

/** The forward pass of rows of windows that start at position 0, or of given tokens at given positions. */
export function buildForward(
  opened: OpenedModel,
  of: BatchShape | { readonly ids: Tensor; readonly positions: Positions },
  { trainable, observe, precision = "fp32", tiling = smallTiles, hooks }: BuildOptions = {},
) {
  const isGiven = "ids" in of;
  const ids = isGiven ? of.ids : input("ids", [of.batchSize, of.context], "I64");
  const positions = isGiven ? of.positions : positionsOf(of, tiling);
  const { model } = opened;
  const { weights } = opened.quantized ?? opened;
  const tensors = new Map<string, Tensor>();
  const tensorOf = (name: string, shape: Shape, dtype: Dtype = "F32"): Tensor => {
    const isTrained = trainable?.has(name);
    const tensor =
      tensors.get(name) ?? (isTrained ? input(name, shape, "F32") : parameter(name, shape, dtype));
    tensors.set(name, tensor);
    return tensor;
  };
  const weight = (name: string) => {
    const [shape, info] = [model.weights.get(name), weights.get(name)];
    invariant(shape, `no weight ${name}`);
    const dtype = model.groupOf(name) === "norms" ? "F32" : precisions[precision];
    if (info && isBlocked(info) && !trainable?.has(name)) {
      const parts = partsOf(info).map((of) => tensorOf(of.name, of.shape, weightDtype(of)));
      return dequantize(parts, dtype);
    }
    return cast(tensorOf(name, shape, info && weightDtype(info)), dtype);
  };
  const kept: { tensor: Tensor; part: KeptPart }[] = [];
  const keep = (tensor: Tensor, part: KeptPart) => {
    kept.push({ tensor, part });
    return tensor;
  };
  const insertedHooks = ({ insertion }: Inserted) => {
    const parameters = insertion.parameters(model);
    const parameterOf = (name: string) => tensorOf(name, parameters.get(name)!.shape);
    const { joinsHeads } = tiling;
    return insertion.hooks(model, { parameter: parameterOf, positions, joinsHeads, observe });
  };
  const inserted = insertionsOf(opened);
  const hidden = model.forward({
    weight,
    ids,
    positions,
    hooks: Object.assign({}, hooks, ...inserted.map(([, one]) => insertedHooks(one))) as Hooks,
    keep,
    tiling,
  });
  keep(hidden, "stream");
  return {
    /** I64 [B, T]. */
    ids,
    /** What the output embedding is multiplied with, [B, T, D]. */
    hidden,
    /** Output embedding, [V, D]. */
    head: weight(model.config.isTied ? model.inputEmbedding : model.outputEmbedding),
    /** Inputs that stand for the tensors asked to train, by canonical name. */
    trainable: new Map([...tensors].filter(([name]) => trainable?.has(name))),
    /** What the backward pass should find in memory, if activations are recomputed; `hidden` is the last. */
    kept,
    logitCap: model.logitCap,
    tiling,
  };
}

/** Known where each row is one window, else the input `positions`. */
function positionsOf({ batchSize, context, isPacked }: BatchShape, tiling: Tiling): Positions {
  if (!isPacked) return fixedPositions(context, tiling);
  return packedPositions(input("positions", [batchSize, context], "I64"), tiling);
}

/** A batch as the inputs `ids`, `labels`, `weights` (1 for a target, 0 for none), and `positions` of packed rows. */
export function batchFeeds({ ids, labels, positions }: Omit<Batch, "numTargets">): Feeds {
  return {
    ids: toInt64(ids),
    ...(positions && { positions: toInt64(positions) }),
    // Any valid id will do where there is no target.
    labels: toInt64(labels.map((label) => Math.max(0, label))),
    weights: new Float32Array(labels.map((label) => (label < 0 ? 0 : 1))),
  };
}

/** Nats of all tokens together, in double precision. */
export const totalNats = (nats: Float32Array) => nats.reduce((sum, nat) => sum + nat, 0);

function scoresOf({ hidden, head, ids, tiling, logitCap }: ForwardGraph) {
  return tokenScores(hidden, head, input("labels", ids.shape, "I64"), tiling, logitCap);
}

/** -ln p of every label, [B, T], zero where there is no target. */
export const natsOf = (graph: ForwardGraph): Tensor =>
  mul(scoresOf(graph).nats, input("weights", graph.ids.shape, "F32"));

/** How many tokens are likelier than each label, [B, T]; says nothing where there is no target. */
export const ranksOf = (graph: ForwardGraph): Tensor => scoresOf(graph).ranks;

/** Logits of every token, F32 [B, T, V]. */
export const logitsOf = ({ hidden, head, logitCap }: ForwardGraph): Tensor =>
  vocabularyLogits(hidden, head, logitCap);

/** What the parameters are bound to: ranges of the checkpoint's files, and the values of what is inserted. */
export function boundWeights(opened: OpenedModel): Map<string, Weight> {
  const bound = new Map<string, Weight>();
  for (const [name, info] of (opened.quantized ?? opened).weights)
    if (!isBlocked(info)) bound.set(name, info);
    else for (const part of partsOf(info)) bound.set(part.name, part);
  for (const [, { values }] of insertionsOf(opened))
    for (const [name, { buffer, byteOffset, byteLength }] of values)
      bound.set(name, new Uint8Array(buffer, byteOffset, byteLength));
  return bound;
}

/** The number format of a stored weight, which `openModel` has checked; of blocks, that of their factors. */
export function weightDtype(info: TensorInfo): Dtype {
  if (isBlocked(info)) return info.factors;
  return Object.hasOwn(DTYPE_BYTES, info.dtype) ? (info.dtype as Dtype) : "F32";
}
