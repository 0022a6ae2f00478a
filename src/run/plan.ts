// What a run would do, before it does it: `--dry-run`.

import { graphsOf, onEngineOf } from "./fit.ts";
import type { Prepared } from "./prepare.ts";

/** What the host takes for a trained value: to pass it and add its gradient up for a micro batch; to update it in a step. */
const HOST_SECONDS = 17e-9;

export type RunPlan = Awaited<ReturnType<typeof planRun>>;

export const planRun = (run: Prepared) =>
  onEngineOf(run)(async (engine, fit) => {
    const { recipe, opened, parameters, context, heldOut, reportPlan, evalPlan } = run;
    const { batchSize, gradientAccumulationSteps, steps, evalEvery } = recipe;
    const trainTokens = run.stream.tokens.length;
    const tokensPerStep = batchSize * gradientAccumulationSteps * context;
    const evaluations = Math.ceil(steps / evalEvery);
    const graphs = graphsOf(run, engine, fit.recompute);
    const training = await engine.estimate(graphs.training).seconds?.();
    const scoring = await engine.estimate(graphs.scoring).seconds?.();
    const host = parameters.trained * HOST_SECONDS;
    const windows = 2 * reportPlan.windows.length + evaluations * evalPlan.windows.length;
    return {
      base: { name: recipe.base, folder: opened.folder, parameters: parameters.base },
      trained: { parameters: parameters.trained, added: parameters.added, share: parameters.share },
      data: { trainTokens, epochs: (steps * tokensPerStep) / trainTokens, heldOut },
      training: { steps, tokensPerStep, context },
      /** Windows scored before and after, and at each of the evaluations on the way. */
      evaluation: {
        context,
        reportWindows: reportPlan.windows.length,
        evalWindows: evalPlan.windows.length,
        evaluations,
      },
      device: engine.description,
      ...fit,
      /** From this machine's speed at products and passes, within about a fifth; null where the engine cannot tell. */
      seconds:
        training === undefined || scoring === undefined
          ? null
          : {
              training: steps * (gradientAccumulationSteps * (training + host) + host),
              evaluation: (windows / batchSize) * scoring,
            },
    };
  });
