// Learning rate as a function of the step: linear warm-up, then constant, linear or cosine down to a minimum.

export interface Schedule {
  readonly schedule: "constant" | "linear" | "cosine";
  /** Steps of the whole run. */
  readonly steps: number;
  readonly warmupSteps: number;
}

/** Learning rate of a step, counted from 1; the peak is reached at step warmupSteps, the minimum at the last. */
export function learningRateAt(
  step: number,
  { schedule, steps, warmupSteps }: Schedule,
  peak: number,
  minimum: number,
): number {
  if (steps === 1) return peak; // the last step is at the minimum, but the only one is to train
  if (step <= warmupSteps) return (peak * step) / warmupSteps;
  const progress = (step - warmupSteps) / Math.max(1, steps - warmupSteps);
  const fall = { constant: 0, linear: progress, cosine: (1 - Math.cos(Math.PI * progress)) / 2 };
  return peak - (peak - Math.min(minimum, peak)) * fall[schedule];
}
