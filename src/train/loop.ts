// The training loop: micro batches in, AdamW on the host, evaluation and saving as callbacks.

import { UserError } from "../core/errors.ts";
import type { Batch } from "../data/batch.ts";
import { adamW, type AdamWOptions, clipFactor, globalNorm, type TrainedTensor } from "./adamw.ts";
import { learningRateAt, type Schedule } from "./schedule.ts";
import type { TrainingStep } from "./step.ts";

export interface LoopOptions extends Schedule, AdamWOptions {
  readonly gradientAccumulationSteps: number;
  /** Peaks of the two groups. */
  readonly learningRate: number;
  readonly baseLearningRate: number;
  readonly minLearningRate: number;
  readonly maxGradNorm: number;
  readonly evalEvery: number;
  readonly saveEvery: number;
  /** Evaluations without improvement before stopping; null never stops. */
  readonly patience: number | null;
}

export interface StepMetrics {
  readonly step: number;
  /** Mean over the step's targets, before the update. */
  readonly lossNats: number;
  readonly learningRate: number;
  /** Before clipping. */
  readonly gradNorm: number;
  /** Targets of the step. */
  readonly numTokens: number;
}

/** What a resumed loop needs besides the tensors. */
export interface LoopState {
  readonly step: number;
  readonly bestLossNats: number | null;
  readonly bestStep: number;
  readonly evaluationsSinceBest: number;
}

export interface LoopCallbacks {
  readonly nextBatch: () => Batch;
  readonly onStep: (metrics: StepMetrics) => void | Promise<void>;
  /** Mean nats per token on held-out windows. */
  readonly evaluate: (step: number) => Promise<number>;
  /** Saves the state after a step. */
  readonly save: (state: LoopState) => Promise<void>;
  /** True to finish the present step, save and return. */
  readonly shouldStop: () => boolean;
  /** The last good checkpoint, for messages. */
  readonly lastCheckpoint?: () => string | undefined;
}

export type Outcome = "finished" | "stopped early" | "interrupted";

/** Trains from `state.step` on, in place; returns why it ended and the last state. */
export async function trainLoop(
  program: TrainingStep,
  tensors: readonly TrainedTensor[],
  options: LoopOptions,
  callbacks: LoopCallbacks,
  state: LoopState,
): Promise<{ readonly outcome: Outcome; readonly state: LoopState }> {
  const sums = new Map(tensors.map(({ name, values }) => [name, new Float32Array(values.length)]));
  let current = state;
  if (current.step === 0 && current.bestLossNats === null && options.steps > 0) {
    current = { ...current, bestLossNats: await callbacks.evaluate(0) };
    await callbacks.save(current);
  }
  const isExhausted = () =>
    options.patience !== null && current.evaluationsSinceBest >= options.patience;
  while (current.step < options.steps) {
    if (isExhausted()) return { outcome: "stopped early", state: current };
    if (callbacks.shouldStop()) {
      await callbacks.save(current);
      return { outcome: "interrupted", state: current };
    }
    const step = current.step + 1;
    await callbacks.onStep(await trainStep(program, tensors, sums, options, callbacks, step));
    current = { ...current, step };
    const isLast = step === options.steps;
    let isBest = false;
    if (step % options.evalEvery === 0 || isLast) {
      const lossNats = await callbacks.evaluate(step);
      isBest = current.bestLossNats === null || lossNats < current.bestLossNats;
      current = isBest
        ? { ...current, bestLossNats: lossNats, bestStep: step, evaluationsSinceBest: 0 }
        : { ...current, evaluationsSinceBest: current.evaluationsSinceBest + 1 };
    }
    const keepsBest = isBest && options.patience !== null;
    if (step % options.saveEvery === 0 || isLast || isExhausted() || keepsBest)
      await callbacks.save(current);
  }
  return { outcome: "finished", state: current };
}

/** One optimizer step: gradients of all micro batches, summed and divided by their targets, clipped, applied. */
async function trainStep(
  program: TrainingStep,
  tensors: readonly TrainedTensor[],
  sums: ReadonlyMap<string, Float32Array>,
  options: LoopOptions,
  { nextBatch, lastCheckpoint }: LoopCallbacks,
  step: number,
): Promise<StepMetrics> {
  for (const sum of sums.values()) sum.fill(0);
  const values = Object.fromEntries(tensors.map(({ name, values }) => [name, values]));
  let [nats, numTokens] = [0, 0];
  for (let micro = 1; micro <= options.gradientAccumulationSteps; micro++) {
    const result = await program.run(nextBatch(), values);
    nats += result.nats;
    numTokens += result.numTokens;
    for (const [name, gradient] of result.gradients) {
      const sum = sums.get(name)!;
      for (let i = 0; i < sum.length; i++) sum[i]! += gradient[i]!;
    }
    if (!Number.isFinite(result.nats))
      throw notFinite(`loss is ${result.nats}`, step, `micro batch ${micro}`, lastCheckpoint?.());
  }
  const gradNorm = globalNorm(sums.values()) / numTokens;
  if (!Number.isFinite(gradNorm))
    throw notFinite(`gradient norm is ${gradNorm}`, step, "all micro batches", lastCheckpoint?.());
  const factor = clipFactor(gradNorm, options.maxGradNorm) / numTokens;
  const rates = {
    added: learningRateAt(step, options, options.learningRate, options.minLearningRate),
    base: learningRateAt(step, options, options.baseLearningRate, options.minLearningRate),
  };
  for (const tensor of tensors) {
    const learningRate = rates[tensor.group];
    adamW(tensor, sums.get(tensor.name)!, options, { step, learningRate, factor });
  }
  const learningRate = tensors.some(({ group }) => group === "added") ? rates.added : rates.base;
  return { step, lossNats: nats / numTokens, learningRate, gradNorm, numTokens };
}

function notFinite(what: string, step: number, batch: string, checkpoint?: string): UserError {
  const last = checkpoint ? `; the last good checkpoint is ${checkpoint}` : "";
  return new UserError(`step ${step}: ${what} (${batch}); the step was not applied${last}`, {
    hint: "start anew with a lower learningRate or maxGradNorm, or more warmupSteps",
    exitCode: 1,
  });
}
