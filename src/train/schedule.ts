// Learning rate as a function of the step: linear warm-up, then constant, linear or cosine down to a minimum.

import type { Recipe } from "../options/schema.ts";

export type RateOptions = Pick<Recipe, "schedule" | "steps" | "warmupSteps" | "minLearningRate">;

/** Learning rate of a step, counted from 1; the peak is reached at step warmupSteps, the minimum at the last. */
export function learningRateAt(
  step: number,
  { schedule, steps, warmupSteps, minLearningRate }: RateOptions,
  peak: number,
): number {
  if (step <= warmupSteps) return (peak * step) / warmupSteps;
  const progress = (step - warmupSteps) / Math.max(1, steps - warmupSteps);
  const fall = { constant: 0, linear: progress, cosine: (1 - Math.cos(Math.PI * progress)) / 2 };
  return peak - (peak - Math.min(minLearningRate, peak)) * fall[schedule];
}
