// What a run would do, before it does it: `--dry-run`.

import type { Engine } from "../engines/index.ts";
import { input, matMul, parameter, reduceSum } from "../graph/build.ts";
import type { Recipe } from "../recipe/schema.ts";
import { countOperations } from "../train/operations.ts";
import type { Fit } from "./fit.ts";
import type { Prepared } from "./prepare.ts";

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
  /** From this machine's speed at a matrix product; real runs take longer or shorter by up to a half. */
  readonly seconds: { readonly training: number; readonly evaluation: number };
}

/** Share of the machine's matrix-product rate that a step reaches. */
const EFFICIENCY = 0.55;

export async function planRun(
  recipe: Recipe,
  prepared: Prepared,
  engine: Engine,
  fit: Fit,
): Promise<RunPlan> {
  const { augmented, parameters, context, stream, reportPlan, evalPlan } = prepared;
  const { batchSize, gradientAccumulationSteps, steps, evalEvery } = recipe;
  const tokensPerStep = batchSize * gradientAccumulationSteps * context;
  const evaluations = Math.ceil(steps / evalEvery);
  const operations = countOperations(augmented.model, { batchSize, context });
  const perBatch =
    operations.step +
    // Weights that train have a gradient for each product, too.
    (recipe.tune.includes("all") ? operations.forward : 0) +
    (fit.recompute === "blocks" ? operations.recompute : 0);
  const rate = EFFICIENCY * (await matMulRate(engine, prepared, batchSize));
  const windows = 2 * reportPlan.windows.length + evaluations * evalPlan.windows.length;
  return {
    base: { name: recipe.base, folder: augmented.folder, parameters: parameters.base },
    trained: {
      parameters: parameters.trained,
      added: parameters.added,
      share: parameters.added / parameters.base,
    },
    data: { trainTokens: stream.length, epochs: (steps * tokensPerStep) / stream.length },
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
      training: (steps * gradientAccumulationSteps * perBatch) / rate,
      evaluation: ((windows / batchSize) * operations.forward) / rate,
    },
  };
}

/** Floating-point operations per second of a product of the model's own size, the best of five. */
async function matMulRate(engine: Engine, { augmented, context }: Prepared, batchSize: number) {
  const { hiddenSize } = augmented.model.config;
  const [rows, columns] = [batchSize * context, 4 * hiddenSize];
  const product = matMul(
    input("x", [rows, hiddenSize], "F32"),
    parameter("w", [hiddenSize, columns]),
  );
  const weights = new Map([["w", new Uint8Array(4 * hiddenSize * columns)]]);
  const program = await engine.compile({ sums: reduceSum(product, [0]) }, weights);
  const x = new Float32Array(rows * hiddenSize);
  let best = Number.POSITIVE_INFINITY;
  for (let i = 0; i < 5; i++) {
    const started = performance.now();
    await program.run({ x });
    best = Math.min(best, performance.now() - started);
  }
  await program.dispose();
  return (2 * rows * hiddenSize * columns) / (best / 1000);
}
