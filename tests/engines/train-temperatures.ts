// Trains a model's temperatures for some steps on an engine, always the same way: on any engine the losses and
// gradients should be the same. Free of Node's modules, since a browser runs it too.

import type { OpenedModel } from "../../src/model/opened.ts";
import type { Batch } from "../../src/data/windows.ts";
import type { Engine } from "../../src/engines/engine.ts";
import type { TrainedTensor } from "../../src/train/adamw.ts";
import { openHost } from "../../src/train/host.ts";
import { INITIAL_STATE, type LoopOptions, trainLoop } from "../../src/train/loop.ts";
import { openTrainingStep, type TrainingOptions, type TrainingStep } from "../../src/train/step.ts";

const window = { batchSize: 2, context: 12 };
const options: Omit<LoopOptions, "steps"> = {
  schedule: "constant",
  warmupSteps: 0,
  learningRate: 5e-2,
  baseLearningRate: 0,
  loraLearningRate: 1e-3,
  minLearningRate: 0,
  gradientAccumulationSteps: 1,
  beta1: 0.9,
  beta2: 0.999,
  epsilon: 1e-8,
  maxGradNorm: 1e9,
  evalEvery: 1e9,
  saveEvery: 1e9,
  earlyStopping: "off",
};

export interface Training {
  /** Mean nats of each step. */
  readonly losses: readonly number[];
  /** Gradients of the first step, by name. */
  readonly gradients: ReadonlyMap<string, Float32Array>;
}

export async function trainTemperatures(
  engine: Engine,
  model: OpenedModel,
  steps: number,
  training: TrainingOptions = {},
): Promise<Training> {
  const names = [...model.temperatures!.values.keys()];
  const step = await openTrainingStep(engine, model, window, names, training);
  const gradients = new Map<string, Float32Array>();
  const watched: TrainingStep = {
    ...step,
    run: async (batch, values) => {
      const result = await step.run(batch, values);
      if (gradients.size === 0)
        for (const [name, gradient] of result.gradients)
          gradients.set(name, Float32Array.from(gradient));
      return result;
    },
  };
  const tensors: readonly TrainedTensor[] = names.map((name) => {
    const values = Float32Array.from(model.temperatures!.values.get(name)!);
    const [mean, square] = [new Float32Array(values.length), new Float32Array(values.length)];
    return {
      name,
      shape: [values.length],
      values,
      mean,
      square,
      weightDecay: 0,
      rate: "learningRate",
    };
  });
  const losses: number[] = [];
  const callbacks = {
    nextBatch: () => batchOf(model),
    onStep: ({ lossNats }: { readonly lossNats: number }) => void losses.push(lossNats),
    evaluate: () => Promise.resolve(0),
    save: () => Promise.resolve(),
    shouldStop: () => false,
  };
  await trainLoop(
    watched,
    tensors,
    openHost(tensors),
    { ...options, steps },
    callbacks,
    INITIAL_STATE,
  );
  await step.dispose();
  return { losses, gradients };
}

function batchOf({ model }: OpenedModel): Batch {
  const numTargets = window.batchSize * window.context;
  const { vocabSize } = model.config;
  const tokens = (offset: number) =>
    Int32Array.from({ length: numTargets }, (_, i) => (i * i + 7 * (i + offset)) % vocabSize);
  return { ids: tokens(0), labels: tokens(1), numTargets };
}

/** Largest difference over largest expected value. */
export function deviation(actual: ArrayLike<number>, expected: ArrayLike<number>): number {
  let [difference, largest] = [0, 0];
  for (let i = 0; i < expected.length; i++) {
    difference = Math.max(difference, Math.abs(actual[i]! - expected[i]!));
    largest = Math.max(largest, Math.abs(expected[i]!));
  }
  return difference / largest;
}
