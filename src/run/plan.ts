// What a run would do, before it does it: `--dry-run`.

import { onEngineOf } from "./fit.ts";
import type { Prepared } from "./prepare.ts";

export type RunPlan = Awaited<ReturnType<typeof planRun>>;

export const planRun = (run: Prepared) =>
  onEngineOf(run)(async (engine, fit) => {
    const { recipe, opened, parameters, context, heldOut, reportPlan, evalPlan } = run;
    const { base, trained, added, share } = parameters;
    const { batchSize, gradientAccumulationSteps, steps, evalEvery } = recipe;
    const trainTokens = run.stream.tokens.length;
    const tokensPerStep = batchSize * gradientAccumulationSteps * context;
    return {
      base: { name: recipe.base, folder: opened.folder, parameters: base },
      trained: { parameters: trained, added, share },
      data: { trainTokens, epochs: (steps * tokensPerStep) / trainTokens, heldOut },
      training: { steps, tokensPerStep, context },
      /** Windows scored before and after, and at each of the evaluations on the way. */
      evaluation: {
        context,
        reportWindows: reportPlan.windows.length,
        evalWindows: evalPlan.windows.length,
        evaluations: Math.ceil(steps / evalEvery),
      },
      device: engine.description,
      ...fit,
    };
  });
