// The training loop: micro batches in, AdamW on the host, evaluation and saving as callbacks.

import { UserError } from "../core/errors.ts";
import type { Batch } from "../data/windows.ts";
import { adamW, type AdamWOptions, clipFactor, globalNorm, type TrainedTensor } from "./adamw.ts";
import { learningRateAt, type Schedule } from "./schedule.ts";
import type { TrainingStep } from "./step.ts";

export interface LoopOptions extends Schedule, AdamWOptions {
  readonly gradientAccumulationSteps: number;
  /** Peaks of the two rates. */
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
  readonly seconds: number;
}

/** What a resumed loop needs besides the tensors. */
export interface LoopState {
  readonly step: number;
  /** The last evaluation's step; null before the first. */
  readonly evaluatedStep: number | null;
  readonly bestLossNats: number | null;
  readonly bestStep: number;
  readonly evaluationsSinceBest: number;
}

export const INITIAL_STATE: LoopState = {
  step: 0,
  evaluatedStep: null,
  bestLossNats: null,
  bestStep: 0,
  evaluationsSinceBest: 0,
};

export interface LoopCallbacks {
  readonly nextBatch: () => Batch;
  readonly onStep: (metrics: StepMetrics) => void | Promise<void>;
  /** Mean nats per token on held-out windows; null where it was stopped on the way. */
  readonly evaluate: (step: number) => Promise<number | null>;
  /** Saves the state after a step. */
  readonly save: (state: LoopState) => Promise<void>;
  /** True to save and return; asked between steps. */
  readonly shouldStop: () => boolean;
  /** The last good checkpoint, for messages. */
  readonly lastCheckpoint: () => string | undefined;
  /** Milliseconds. */
  readonly now: () => number;
}

export type Outcome = "finished" | "stopped early" | "interrupted";

/**
 * Trains from `state.step` on, in place; returns why it ended and the last state, which is saved. All that the loop
 * decides follows from the state, so that it goes on from a saved one as if it had never stopped.
 */
export async function trainLoop(
  program: TrainingStep,
  tensors: readonly TrainedTensor[],
  options: LoopOptions,
  callbacks: LoopCallbacks,
  state: LoopState,
): Promise<{ readonly outcome: Outcome; readonly state: LoopState }> {
  const { steps, evalEvery, saveEvery, patience } = options;
  const { evaluate, shouldStop, onStep } = callbacks;
  const sums = new Map(tensors.map(({ name, values }) => [name, new Float32Array(values.length)]));
  let current = state;
  let saved = state;
  const save = async () => {
    if (saved === current) return;
    const bad = tensors.find(({ values }) => !values.every(Number.isFinite));
    if (bad)
      throw notFinite(`${bad.name} holds values that are not finite`, current.step, callbacks);
    await callbacks.save(current);
    saved = current;
  };
  const end = async (outcome: Outcome) => {
    await save();
    return { outcome, state: current };
  };
  for (;;) {
    const isEvaluated = current.evaluatedStep === current.step;
    if (!isEvaluated && (current.step % evalEvery === 0 || current.step === steps)) {
      const lossNats = await evaluate(current.step);
      if (lossNats === null) return end("interrupted");
      if (!Number.isFinite(lossNats))
        throw notFinite(`held-out loss is ${lossNats}`, current.step, callbacks);
      current = judged(current, lossNats);
    }
    if (current.step >= steps) return end("finished");
    if (patience !== null && current.evaluationsSinceBest >= patience) return end("stopped early");
    const isBest = patience !== null && current.bestStep === current.step;
    if (isBest || current.step % saveEvery === 0) await save();
    if (shouldStop()) return end("interrupted");
    const step = current.step + 1;
    await onStep(await trainStep(program, tensors, sums, options, callbacks, step));
    current = { ...current, step };
  }
}

/** The state after an evaluation. */
function judged(state: LoopState, lossNats: number): LoopState {
  const { step, bestLossNats, evaluationsSinceBest } = state;
  const evaluated = { ...state, evaluatedStep: step };
  return bestLossNats === null || lossNats < bestLossNats
    ? { ...evaluated, bestLossNats: lossNats, bestStep: step, evaluationsSinceBest: 0 }
    : { ...evaluated, evaluationsSinceBest: evaluationsSinceBest + 1 };
}

/** One optimizer step: gradients of all micro batches, summed and divided by their targets, clipped, applied. */
async function trainStep(
  program: TrainingStep,
  tensors: readonly TrainedTensor[],
  sums: ReadonlyMap<string, Float32Array>,
  options: LoopOptions,
  callbacks: LoopCallbacks,
  step: number,
): Promise<StepMetrics> {
  const started = callbacks.now();
  const values = Object.fromEntries(tensors.map(({ name, values }) => [name, values]));
  const batches = Array.from({ length: options.gradientAccumulationSteps }, callbacks.nextBatch);
  let [nats, numTokens, gradNorm] = [0, 0, 0];
  do {
    for (const sum of sums.values()) sum.fill(0);
    [nats, numTokens] = [0, 0];
    for (const [i, batch] of batches.entries()) {
      const result = await program.run(batch, values);
      nats += result.nats;
      numTokens += result.numTokens;
      for (const [name, gradient] of result.gradients) addTo(sums.get(name)!, gradient);
      if (!Number.isFinite(result.nats))
        throw notFinite(`loss of micro batch ${i + 1} is ${result.nats}`, step, callbacks);
    }
    gradNorm = globalNorm(sums.values()) / numTokens;
  } while (program.shouldRetry?.(Number.isFinite(gradNorm)));
  if (!Number.isFinite(gradNorm))
    throw notFinite(`norm of the whole batch's gradient is ${gradNorm}`, step, callbacks);
  const factor = clipFactor(gradNorm, options.maxGradNorm) / numTokens;
  const rateOf = (rate: TrainedTensor["rate"]) =>
    learningRateAt(step, options, options[rate], options.minLearningRate);
  for (const tensor of tensors) {
    const learningRate = rateOf(tensor.rate);
    adamW(tensor, sums.get(tensor.name)!, options, { step, learningRate, factor });
  }
  const isOfBase = tensors.every(({ rate }) => rate === "baseLearningRate");
  const learningRate = rateOf(isOfBase ? "baseLearningRate" : "learningRate");
  const seconds = (callbacks.now() - started) / 1000;
  return { step, lossNats: nats / numTokens, learningRate, gradNorm, numTokens, seconds };
}

function addTo(sum: Float32Array, values: Float32Array): void {
  for (let i = 0; i < sum.length; i++) sum[i]! += values[i]!;
}

function notFinite(what: string, step: number, { lastCheckpoint }: LoopCallbacks): UserError {
  const last = lastCheckpoint();
  return new UserError(
    `step ${step}: ${what}; ${last ? `the last good checkpoint is ${last}` : "there is no checkpoint yet"}`,
    {
      hint: "start anew with a lower learningRate or maxGradNorm, or more warmupSteps",
      exitCode: 1,
    },
  );
}
