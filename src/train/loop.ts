// The training loop: micro batches in, AdamW on the host, evaluation and saving as callbacks.

import { NotFiniteError, type UserError } from "../core/errors.ts";
import type { Batch } from "../data/windows.ts";
import { DeviceError } from "../engines/failure.ts";
import { inOrder } from "../engines/pool.ts";
import type { Recipe } from "../options/schema.ts";
import { clipFactor, type TrainedTensor } from "./adamw.ts";
import type { Host } from "./host.ts";
import type { LossScaleState, TrainingStep } from "./step.ts";

export type RateOptions = Pick<Recipe, "schedule" | "steps" | "warmupSteps" | "minLearningRate">;

export type LoopOptions = RateOptions &
  Pick<Recipe, "beta1" | "beta2" | "epsilon" | TrainedTensor["rate"]> &
  Pick<Recipe, "gradientAccumulationSteps" | "maxGradNorm"> &
  Pick<Recipe, "evalEvery" | "saveEvery" | "earlyStopping">;

export type StepMetrics = Readonly<Awaited<ReturnType<typeof trainStep>>>;

/** What a resumed loop needs besides the tensors. */
export type LoopState = Readonly<typeof INITIAL_STATE> & {
  /** Of half precision. */
  readonly lossScale?: LossScaleState;
};

export const INITIAL_STATE = {
  step: 0,
  /** The last evaluation's step; null before the first. */
  evaluatedStep: null as number | null,
  bestLossNats: null as number | null,
  bestStep: 0,
  evaluationsSinceBest: 0,
};

export interface LoopCallbacks {
  readonly nextBatch: () => Batch;
  readonly onStep: (metrics: StepMetrics) => void | Promise<void>;
  /** Mean nats per token on held-out windows; null where it was stopped on the way. */
  readonly evaluate: (step: number) => Promise<number | null>;
  readonly save: (state: LoopState) => Promise<void>;
  /** True to save and return; asked between steps, and of an error, whether it only says so. */
  readonly shouldStop: (error?: unknown) => boolean;
}

/**
 * Trains from `state.step` on, in place; returns why it ended and the last state, which is saved. All that the loop
 * decides follows from the state, so that it goes on from a saved one as if it had never stopped.
 */
export async function trainLoop(
  program: TrainingStep,
  tensors: readonly TrainedTensor[],
  host: Host,
  options: LoopOptions,
  { nextBatch, onStep, evaluate, save, shouldStop }: LoopCallbacks,
  state: LoopState,
) {
  const { steps, evalEvery, saveEvery, earlyStopping } = options;
  const patience = earlyStopping === "off" ? Infinity : earlyStopping.patience;
  const { lossScale } = program;
  // A checkpoint that does not say it goes on at the initial scale.
  Object.assign(lossScale?.state ?? {}, state.lossScale);
  let current = state;
  let saved = state;
  const failure = (what: string, step = current.step) => {
    const good = saved === INITIAL_STATE ? "none yet" : `that of step ${saved.step}`;
    return new NotFiniteError(`step ${step}: ${what}; last good checkpoint: ${good}`, {
      hint: lossScale
        ? "half precision ends at 65,504: start anew with --precision fp32, or bf16 where the device has it"
        : "start anew with a lower learningRate or maxGradNorm, or more warmupSteps",
      exitCode: 1,
    });
  };
  const saveOnce = async () => {
    if (saved === current) return;
    const bad = tensors.find(({ values }) => !values.every(Number.isFinite));
    if (bad) throw failure(`${bad.name} holds values that are not finite`);
    await save(current);
    saved = current;
  };
  const end = async (outcome: "finished" | "stopped early" | "interrupted") => {
    await saveOnce();
    return { outcome, state: current };
  };
  /** All that was trained lies in this process, whatever becomes of the device. */
  const saving = <T>(work: Promise<T>) =>
    work.catch(async (error: unknown) => {
      if (error instanceof DeviceError) await saveOnce();
      throw error;
    });
  for (;;) {
    const isEvaluated = current.evaluatedStep === current.step;
    if (!isEvaluated && (current.step % evalEvery === 0 || current.step === steps)) {
      const lossNats = await saving(evaluate(current.step));
      if (lossNats === null) return end("interrupted");
      if (!Number.isFinite(lossNats)) throw failure(`held-out loss is ${lossNats}`);
      current = judged(current, lossNats);
    }
    if (current.step >= steps) return end("finished");
    if (current.evaluationsSinceBest >= patience) return end("stopped early");
    const isBest = earlyStopping !== "off" && current.bestStep === current.step;
    if (isBest || current.step % saveEvery === 0) await saveOnce();
    if (shouldStop()) return end("interrupted");
    const step = current.step + 1;
    const batches = Array.from({ length: options.gradientAccumulationSteps }, nextBatch);
    const fail = (what: string) => failure(what, step);
    const how = { ...options, step, fail };
    const training = saving(trainStep(program, tensors, host, batches, how));
    const metrics = await training.catch((error: unknown) => {
      if (!shouldStop(error)) throw error;
    });
    if (!metrics) return end("interrupted");
    await onStep(metrics);
    current = { ...current, step, ...(lossScale && { lossScale: { ...lossScale.state } }) };
  }
}

function judged(state: LoopState, lossNats: number): LoopState {
  const { step, bestLossNats, evaluationsSinceBest } = state;
  const evaluated = { ...state, evaluatedStep: step };
  return bestLossNats === null || lossNats < bestLossNats
    ? { ...evaluated, bestLossNats: lossNats, bestStep: step, evaluationsSinceBest: 0 }
    : { ...evaluated, evaluationsSinceBest: evaluationsSinceBest + 1 };
}

/**
 * Of all micro batches together, nats, targets and the gradient of the mean, before it is divided by the targets, into
 * the host's sums; half precision that overflows is tried again.
 */
export async function sumGradients(
  program: TrainingStep,
  tensors: readonly Pick<TrainedTensor, "name" | "values">[],
  host: Host,
  batches: readonly Batch[],
  onLoss: (nats: number, index: number) => void = () => undefined,
) {
  const values = Object.fromEntries(tensors.map(({ name, values }) => [name, values]));
  const run = ([index, batch]: [number, Batch]) => program.run(batch, values, index);
  let [nats, numTokens, gradNorm] = [0, 0, 0];
  do {
    [nats, numTokens] = [0, 0];
    // In the order of the micro batches, so that the sums do not depend on how many devices there are.
    await inOrder(batches.entries(), program.lanes, run, async (result, i) => {
      nats += result.nats;
      numTokens += result.numTokens;
      if (!program.take) await host.add(result.gradients, i === 0);
      onLoss(result.nats, i);
    });
    if (program.take) await host.add(await program.take(), true);
    gradNorm = (await host.norm()) / numTokens;
  } while (program.lossScale?.shouldRetry(Number.isFinite(gradNorm)));
  return { nats, numTokens, gradNorm };
}

/** One optimizer step: gradients of all micro batches, summed and divided by their targets, clipped, applied. */
async function trainStep(
  program: TrainingStep,
  tensors: readonly TrainedTensor[],
  host: Host,
  batches: readonly Batch[],
  { step, fail, ...options }: LoopOptions & { step: number; fail: (what: string) => UserError },
) {
  const started = performance.now();
  const onLoss = (nats: number, i: number) => {
    if (!Number.isFinite(nats)) throw fail(`loss of micro batch ${i + 1} is ${nats}`);
  };
  const { nats, numTokens, gradNorm } = await sumGradients(program, tensors, host, batches, onLoss);
  if (!Number.isFinite(gradNorm)) throw fail(`norm of the whole batch's gradient is ${gradNorm}`);
  const factor = clipFactor(gradNorm, options.maxGradNorm) / numTokens;
  const rateOf = (rate: TrainedTensor["rate"]) => learningRateAt(step, options, options[rate]);
  const rates = tensors.map(({ rate }) => rate);
  await host.update({ step, factor, learningRates: rates.map(rateOf), options });
  return {
    step,
    /** Mean over the step's targets, before the update. */
    lossNats: nats / numTokens,
    learningRate: rateOf(rates.includes("learningRate") ? "learningRate" : rates[0]!),
    /** Before clipping. */
    gradNorm,
    /** Targets of the step. */
    numTokens,
    seconds: (performance.now() - started) / 1000,
  };
}

/**
 * Learning rate of a step, counted from 1: linear warm-up to the peak at step warmupSteps, then constant, or linear or
 * cosine down to the minimum at the last.
 */
export function learningRateAt(step: number, options: RateOptions, peak: number): number {
  const { schedule, steps, warmupSteps, minLearningRate } = options;
  if (steps === 1) return peak; // the last step is at the minimum, but the only one is to train
  if (step <= warmupSteps) return (peak * step) / warmupSteps;
  const progress = (step - warmupSteps) / Math.max(1, steps - warmupSteps);
  const fall = { constant: 0, linear: progress, cosine: (1 - Math.cos(Math.PI * progress)) / 2 };
  return peak - (peak - Math.min(minLearningRate, peak)) * fall[schedule];
}
