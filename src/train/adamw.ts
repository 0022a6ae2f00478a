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

/** Of the elements of a range, in double precision, added to `sum`. */
export function sumOfSquares(x: Float32Array, { from = 0, to = x.length, sum = 0 } = {}): number {
  for (let i = from; i < to; i++) sum += x[i]! * x[i]!;
  return sum;
}

/** Euclidean norm of all gradients together. */
export const globalNorm = (gradients: Iterable<Float32Array>) =>
  Math.sqrt([...gradients].reduce((sum, gradient) => sumOfSquares(gradient, { sum }), 0));

/** The factor that brings a norm down to maxNorm (PyTorch's clip_grad_norm_ adds 1e-6 to the norm). */
export function clipFactor(norm: number, maxNorm: number): number {
  return Math.min(1, maxNorm / (norm + 1e-6));
}

export type AdamOptions = Pick<Recipe, "beta1" | "beta2" | "epsilon">;

interface Update {
  /** From 1. */
  readonly step: number;
  readonly learningRate: number;
  /** By which the gradient is scaled as it is read. */
  readonly factor: number;
  readonly from?: number;
  readonly to?: number;
}

/** Updates values and moments in place, all or those of a range. */
export function adamW(
  { values, mean, square, weightDecay }: TrainedTensor,
  gradient: Float32Array,
  { beta1, beta2, epsilon }: AdamOptions,
  { step, learningRate, factor, from = 0, to = values.length }: Update,
): void {
  const correction1 = 1 - beta1 ** step;
  const correction2 = Math.sqrt(1 - beta2 ** step);
  const stepSize = learningRate / correction1;
  const keep = 1 - learningRate * weightDecay;
  for (let i = from; i < to; i++) {
    const g = gradient[i]! * factor;
    const m = (mean[i] = beta1 * mean[i]! + (1 - beta1) * g);
    const v = (square[i] = beta2 * square[i]! + (1 - beta2) * g * g);
    values[i] = values[i]! * keep - (stepSize * m) / (Math.sqrt(v) / correction2 + epsilon);
  }
}
