// The training graph: forward pass, summed loss and the gradients of what trains, compiled as one program.
// B = batch, T = sequence

import { batchFeeds, boundWeights, buildForward, natsOf, totalNats } from "../model/graph.ts";
import type { OpenedModel } from "../model/opened.ts";
import { UserError } from "../core/errors.ts";
import type { Precision } from "../core/dtype.ts";
import type { Batch, BatchShape } from "../data/windows.ts";
import type { Engine, Results } from "../engines/index.ts";
import { gradients } from "../graph/autodiff.ts";
import { input, mul, reduceSum } from "../graph/build.ts";
import { simplify } from "../graph/passes.ts";
import type { KeptPart } from "../models/decoder.ts";
import type { Outputs } from "../graph/tensor.ts";
import { smallTiles, type Tiling } from "../nn/tiling.ts";

export type TrainingStep = Awaited<ReturnType<typeof openTrainingStep>>;

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
  const kinds = { nothing: [], cheap: ["stream", "product"], blocks: ["stream"] } as const;
  const partsOf = (parts: readonly KeptPart[]) =>
    graph.kept.flatMap(({ tensor, part }) => (parts.includes(part) ? [tensor] : []));
  const wrt = names.map((name) => graph.trainable.get(name)!);
  const sum = reduceSum(nats, [0, 1]);
  const loss = precision === "fp16" ? mul(sum, input(LOSS_SCALE, [], "F32")) : sum;
  const staged = partsOf(recompute === "blocks" ? ["stage", "piece"] : ["stage"]);
  const grads = gradients(loss, wrt, partsOf(kinds[recompute]), new Set(staged));
  const named = names.map((name, i) => [GRADIENT + name, grads[i]!] as const);
  return simplify({ nats, ...Object.fromEntries(named) });
}

/** Half precision on an engine that lacks it is a UserError. */
export function needPrecision({ precisions, description }: Engine, precision: Precision): void {
  if (!precisions.includes(precision))
    throw new UserError(`${description} does not compute in ${precision}`, {
      hint: `it has ${precisions.join(", ")}; use one of them, or another device`,
    });
}

/** Compiles the training graph, in a precision that the engine has. */
export async function openTrainingStep(
  engine: Engine,
  opened: OpenedModel,
  shape: BatchShape,
  names: readonly string[],
  options: TrainingOptions = {},
) {
  const { precision = "fp32" } = options;
  const scale = precision === "fp16" ? new LossScale() : undefined;
  needPrecision(engine, precision);
  const { tiling } = engine;
  const outputs = buildTrainingGraph(opened, shape, names, { tiling, ...options });
  const program = await engine.compile(outputs, boundWeights(opened));
  const outputNames = names.map((name) => GRADIENT + name);
  const byName = (results: Results): ReadonlyMap<string, Float32Array> =>
    new Map(names.map((name) => [name, results[GRADIENT + name]!]));
  // What overflows in a sum of scaled gradients need not overflow otherwise.
  const take = scale ? undefined : program.take;
  return {
    /** Sums over the micro batch's targets, so that micro batches of different sizes add up. */
    run: async (batch: Batch, values: Readonly<Record<string, Float32Array>>, index?: number) => {
      const scaled = scale && { [LOSS_SCALE]: Float32Array.of(scale.state.value) };
      const feeds = { ...values, ...batchFeeds(batch), ...scaled };
      const adding = take && index !== undefined ? { index, names: outputNames } : undefined;
      const results = await program.run(feeds, adding);
      const nats = totalNats(results["nats"]!);
      // Of the summed nats, by name; overwritten by the run that is as many later as there are lanes.
      const gradients: ReadonlyMap<string, Float32Array> = adding ? new Map() : byName(results);
      for (const gradient of scale ? gradients.values() : [])
        for (let i = 0; i < gradient.length; i++) gradient[i]! /= scale!.state.value;
      return { nats, numTokens: batch.numTargets, gradients };
    },
    /** Where runs that have an index, from 0, give no gradients: those of all, added in this order. */
    ...(take && { take: async () => byName(await take(outputNames)) }),
    /** How many runs are asked for at a time. */
    lanes: program.ahead ?? engine.lanes,
    ...(scale && { lossScale: scale }),
    dispose: () => program.dispose(),
  };
}

const INITIAL_SCALE = 2 ** 10;
const SMALLEST_SCALE = 2 ** -10;
const LARGEST_SCALE = 2 ** 16;
/** Finite steps in a row after which a larger scale is tried. */
const GROWTH_INTERVAL = 200;

/** The factor, and the finite steps since it was last halved. */
export type LossScaleState = Readonly<LossScale["state"]>;

/**
 * Dynamic loss scaling (Micikevicius et al., 2018): a factor on the loss keeps cotangents in half precision between
 * underflow and overflow. It is a power of two, so that scaling rounds nothing.
 */
export class LossScale {
  readonly state = { value: INITIAL_SCALE, finiteSteps: 0 };

  /** Takes note of a step's gradients; true if the step should be tried again, at half the scale. */
  shouldRetry(isFinite: boolean): boolean {
    const { state } = this;
    if (isFinite) {
      const isDue = ++state.finiteSteps % GROWTH_INTERVAL === 0;
      if (isDue) state.value = Math.min(LARGEST_SCALE, 2 * state.value);
      return false;
    }
    state.finiteSteps = 0;
    if (state.value <= SMALLEST_SCALE) return false;
    state.value /= 2;
    return true;
  }
}
