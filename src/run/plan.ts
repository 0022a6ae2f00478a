// What a run would do, before it does it: `--dry-run`.

import type { Engine } from "../engines/index.ts";
import type { Recipe } from "../options/schema.ts";
import { type Fit, graphsOf } from "./fit.ts";
import type { Prepared } from "./prepare.ts";
import { HOST_SECONDS, measureSpeed, secondsOf } from "../engines/speed.ts";

export interface RunPlan extends Fit {
  readonly base: { readonly name: string; readonly folder: string; readonly parameters: number };
  readonly trained: { readonly parameters: number; readonly added: number; readonly share: number };
  readonly data: { readonly trainTokens: number; readonly epochs: number };
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
  /** From this machine's speed at products and passes; real runs take longer or shorter by up to a third. */
  readonly seconds: { readonly training: number; readonly evaluation: number };
}

export async function planRun(
  recipe: Recipe,
  prepared: Prepared,
  engine: Engine,
  fit: Fit,
): Promise<RunPlan> {
  const { opened, parameters, context, stream, reportPlan, evalPlan } = prepared;
  const { batchSize, gradientAccumulationSteps, steps, evalEvery } = recipe;
  const trainTokens = stream.tokens.length;
  const tokensPerStep = batchSize * gradientAccumulationSteps * context;
  const evaluations = Math.ceil(steps / evalEvery);
  const { hiddenSize: hidden, intermediateSize: intermediate } = opened.model.config;
  const speed = await measureSpeed(engine, { rows: batchSize * context, hidden, intermediate });
  const graphs = graphsOf(recipe, prepared, fit.recompute);
  const host = parameters.trained * HOST_SECONDS;
  const microBatch = secondsOf(graphs.training, speed) + host;
  const windows = 2 * reportPlan.windows.length + evaluations * evalPlan.windows.length;
  return {
    base: { name: recipe.base, folder: opened.folder, parameters: parameters.base },
    trained: {
      parameters: parameters.trained,
      added: parameters.added,
      share: parameters.added / parameters.base,
    },
    data: { trainTokens, epochs: (steps * tokensPerStep) / trainTokens },
    training: { steps, tokensPerStep, context },
    evaluation: {
      context,
      reportWindows: reportPlan.windows.length,
      evalWindows: evalPlan.windows.length,
      evaluations,
    },
    device: engine.description,
    ...fit,
    seconds: {
      training: steps * (gradientAccumulationSteps * microBatch + host),
      evaluation: (windows / batchSize) * secondsOf(graphs.scoring, speed),
    },
  };
}
