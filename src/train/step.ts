// The training graph: forward pass, summed loss and the gradients of what trains, compiled as one program.
// B = batch, T = sequence

import {
  batchFeeds,
  boundWeights,
  buildForward,
  natsOf,
  totalNats,
  type BatchShape,
} from "../model/graph.ts";
import type { OpenedModel } from "../model/model.ts";
import { UserError } from "../core/errors.ts";
import type { Precision } from "../core/dtype.ts";
import type { Batch } from "../data/windows.ts";
import type { Engine } from "../engines/index.ts";
import { gradients } from "../graph/autodiff.ts";
import { input, mul, reduceSum } from "../graph/build.ts";
import { simplify } from "../graph/passes.ts";
import type { Outputs } from "../graph/tensor.ts";
import { smallTiles, type Tiling } from "../nn/tiling.ts";
import { LossScale } from "./loss-scale.ts";

/** Sums over the micro batch's targets, so that micro batches of different sizes add up. */
export interface StepResult {
  readonly nats: number;
  readonly numTokens: number;
  /** Of the summed nats, by name; overwritten by the next run. */
  readonly gradients: ReadonlyMap<string, Float32Array>;
}

export interface TrainingStep {
  run(batch: Batch, values: Readonly<Record<string, Float32Array>>): Promise<StepResult>;
  /**
   * In half precision: told whether a step's gradients were finite; true where the same step should be tried again,
   * since a smaller loss scale may make them so.
   */
  readonly shouldRetry?: (isFinite: boolean) => boolean;
  dispose(): Promise<void>;
}

export interface TrainingOptions {
  /**
   * What the backward pass computes again instead of holding it: nothing, what is cheap (attention weights and
   * elementwise results), or all of a block from its input. Default: what is cheap.
   */
  readonly recompute?: "nothing" | "cheap" | "blocks";
  readonly precision?: Precision;
  readonly tiling?: Tiling;
}

const GRADIENT = "grad.";
const LOSS_SCALE = "lossScale";

/**
 * The outputs of one training step: `nats` [B, T], zero where there is no target, and `grad.<name>`; in half precision
 * the gradients are times the input `lossScale`.
 */
export function buildTrainingGraph(
  opened: OpenedModel,
  shape: BatchShape,
  names: readonly string[],
  { recompute = "cheap", precision = "fp32", tiling = smallTiles }: TrainingOptions = {},
): Outputs {
  const graph = buildForward(opened, shape, { trainable: new Set(names), precision, tiling });
  // Sum, not mean: micro batches hold different numbers of targets, so means cannot be averaged.
  const nats = natsOf(graph);
  const kept = graph.kept.flatMap(({ tensor, part }) =>
    recompute === "cheap" || (recompute === "blocks" && part === "stream") ? [tensor] : [],
  );
  const wrt = names.map((name) => graph.trainable.get(name)!);
  const sum = reduceSum(nats, [0, 1]);
  const loss = precision === "fp16" ? mul(sum, input(LOSS_SCALE, [], "F32")) : sum;
  const grads = gradients(loss, wrt, { kept });
  return simplify({
    nats,
    ...Object.fromEntries(names.map((name, i) => [GRADIENT + name, grads[i]!])),
  });
}

/** Compiles the training graph; half precision on an engine that lacks it is a UserError. */
export async function openTrainingStep(
  engine: Engine,
  opened: OpenedModel,
  shape: BatchShape,
  names: readonly string[],
  options: TrainingOptions = {},
): Promise<TrainingStep> {
  const scale = options.precision === "fp16" ? new LossScale() : undefined;
  const { precision = "fp32" } = options;
  if (!engine.precisions.includes(precision))
    throw new UserError(`${engine.description} does not compute in ${precision}`, {
      hint: `it has ${engine.precisions.join(", ")}; use one of them, or another device`,
    });
  const { tiling } = engine;
  const outputs = buildTrainingGraph(opened, shape, names, { tiling, ...options });
  const program = await engine.compile(outputs, boundWeights(opened));
  return {
    run: async (batch, values) => {
      const scaled = scale && { [LOSS_SCALE]: Float32Array.of(scale.value) };
      const results = await program.run({ ...values, ...batchFeeds(batch), ...scaled });
      const nats = totalNats(results["nats"]!);
      const grads = names.map((name) => [name, results[GRADIENT + name]!] as const);
      if (scale) for (const [, gradient] of grads) divide(gradient, scale.value);
      return { nats, numTokens: batch.numTargets, gradients: new Map(grads) };
    },
    ...(scale && { shouldRetry: (isFinite: boolean) => scale.shouldRetry(isFinite) }),
    dispose: () => program.dispose(),
  };
}

function divide(values: Float32Array, by: number): void {
  for (let i = 0; i < values.length; i++) values[i]! /= by;
}
