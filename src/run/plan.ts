// What a run would do, before it does it: `--dry-run`.

import type { Engine } from "../engines/index.ts";
import type { Recipe } from "../options/schema.ts";
import type { Fit } from "./fit.ts";
import type { HeldOut, Prepared } from "./prepare.ts";

export interface RunPlan extends Fit {
  readonly base: { readonly name: string; readonly folder: string; readonly parameters: number };
  readonly trained: { readonly parameters: number; readonly added: number; readonly share: number };
  readonly data: {
    readonly trainTokens: number;
    readonly epochs: number;
    readonly heldOut: HeldOut | null;
  };
  readonly training: {
    readonly steps: number;
    readonly tokensPerStep: number;
    readonly context: number;
  };
  readonly evaluation: {
    readonly context: number;
    /** Windows scored before and after, and at each of the evaluations on the way. */
    readonly reportWindows: number;
    readonly evalWindows: number;
    readonly evaluations: number;
  };
  readonly device: string;
}

export function planRun(recipe: Recipe, prepared: Prepared, engine: Engine, fit: Fit): RunPlan {
  const { opened, parameters, context, stream, heldOut, reportPlan, evalPlan } = prepared;
  const { batchSize, gradientAccumulationSteps, steps, evalEvery } = recipe;
  const trainTokens = stream.tokens.length;
  const tokensPerStep = batchSize * gradientAccumulationSteps * context;
  const evaluations = Math.ceil(steps / evalEvery);
  return {
    base: { name: recipe.base, folder: opened.folder, parameters: parameters.base },
    trained: {
      parameters: parameters.trained,
      added: parameters.added,
      share: parameters.added / parameters.base,
    },
    data: { trainTokens, epochs: (steps * tokensPerStep) / trainTokens, heldOut },
    training: { steps, tokensPerStep, context },
    evaluation: {
      context,
      reportWindows: reportPlan.windows.length,
      evalWindows: evalPlan.windows.length,
      evaluations,
    },
    device: engine.description,
    ...fit,
  };
}
