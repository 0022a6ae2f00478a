// The training graph: forward pass, summed loss and the gradients of what trains, compiled as one program.
// B = batch, T = sequence

import { batchFeeds, boundWeights, buildForward, natsOf, type Window } from "../augmented/graph.ts";
import type { AugmentedModel } from "../augmented/open.ts";
import type { Batch } from "../data/batch.ts";
import type { Engine } from "../engines/index.ts";
import { gradients } from "../graph/autodiff.ts";
import { reduceSum } from "../graph/build.ts";
import { simplify } from "../graph/passes.ts";
import type { Outputs } from "../graph/tensor.ts";

/** Sums over the micro batch's targets, so that micro batches of different sizes add up. */
export interface StepResult {
  readonly nats: number;
  readonly numTokens: number;
  /** Of the summed nats, by name; overwritten by the next run. */
  readonly gradients: ReadonlyMap<string, Float32Array>;
}

export interface TrainingStep {
  run(batch: Batch, values: Readonly<Record<string, Float32Array>>): Promise<StepResult>;
  dispose(): Promise<void>;
}

export interface TrainingOptions {
  /** Computes activations again in the backward pass instead of holding them. */
  readonly recompute?: boolean;
}

const GRADIENT = "grad.";

/** The outputs of one training step: `nats` [B, T], zero where there is no target, and `grad.<name>`. */
export function buildTrainingGraph(
  augmented: AugmentedModel,
  window: Window,
  names: readonly string[],
  { recompute = false }: TrainingOptions = {},
): Outputs {
  const graph = buildForward(augmented, window, { trainable: new Set(names) });
  // Sum, not mean: micro batches hold different numbers of targets, so means cannot be averaged.
  const nats = natsOf(graph);
  const wrt = names.map((name) => graph.trainable.get(name)!);
  const grads = gradients(reduceSum(nats, [0, 1]), wrt, recompute ? { kept: graph.kept } : {});
  return simplify({
    nats,
    ...Object.fromEntries(names.map((name, i) => [GRADIENT + name, grads[i]!])),
  });
}

export async function openTrainingStep(
  engine: Engine,
  augmented: AugmentedModel,
  window: Window,
  names: readonly string[],
  options: TrainingOptions = {},
): Promise<TrainingStep> {
  const outputs = buildTrainingGraph(augmented, window, names, options);
  const program = await engine.compile(outputs, boundWeights(augmented));
  return {
    run: async (batch, values) => {
      const results = await program.run({ ...values, ...batchFeeds(batch) });
      let nats = 0;
      for (const value of results["nats"]!) nats += value;
      const grads = names.map((name) => [name, results[GRADIENT + name]!] as const);
      return { nats, numTokens: batch.numTargets, gradients: new Map(grads) };
    },
    dispose: () => program.dispose(),
  };
}
