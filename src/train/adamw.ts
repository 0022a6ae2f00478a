// AdamW (Loshchilov and Hutter, 2019) on host arrays, with PyTorch's order of operations and its global-norm clipping.

import type { Recipe } from "../options/schema.ts";

/** One trained tensor: its values, its moments, and how its group is updated. */
export interface TrainedTensor {
  readonly name: string;
  readonly shape: readonly number[];
  readonly values: Float32Array;
  readonly mean: Float32Array;
  readonly square: Float32Array;
  /** Decoupled: values shrink by learning rate × decay. */
  readonly weightDecay: number;
  /** Which of the recipe's learning rates applies. */
  readonly rate: "learningRate" | "baseLearningRate" | "loraLearningRate";
}

/** Euclidean norm of all gradients together, in double precision. */
export function globalNorm(gradients: Iterable<Float32Array>): number {
  let sum = 0;
  for (const gradient of gradients)
    for (let i = 0; i < gradient.length; i++) sum += gradient[i]! * gradient[i]!;
  return Math.sqrt(sum);
}

/** The factor that brings a norm down to maxNorm (PyTorch's clip_grad_norm_ adds 1e-6 to the norm). */
export function clipFactor(norm: number, maxNorm: number): number {
  return Math.min(1, maxNorm / (norm + 1e-6));
}

/** Updates values and moments in place. `gradient` is scaled by `factor` as it is read; `step` counts from 1. */
export function adamW(
  { values, mean, square, weightDecay }: TrainedTensor,
  gradient: Float32Array,
  { beta1, beta2, epsilon }: Pick<Recipe, "beta1" | "beta2" | "epsilon">,
  { step, learningRate, factor }: { step: number; learningRate: number; factor: number },
): void {
  const correction1 = 1 - beta1 ** step;
  const correction2 = Math.sqrt(1 - beta2 ** step);
  const stepSize = learningRate / correction1;
  const keep = 1 - learningRate * weightDecay;
  for (let i = 0; i < values.length; i++) {
    const g = gradient[i]! * factor;
    const m = (mean[i] = beta1 * mean[i]! + (1 - beta1) * g);
    const v = (square[i] = beta2 * square[i]! + (1 - beta2) * g * g);
    values[i] = values[i]! * keep - (stepSize * m) / (Math.sqrt(v) / correction2 + epsilon);
  }
}
