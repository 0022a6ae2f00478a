// What a run would do, before it does it: `--dry-run`.

import { sizeOf } from "../core/shape.ts";
import type { Engine } from "../engines/index.ts";
import { input, matMul, parameter, reduceSum } from "../graph/build.ts";
import type { Recipe } from "../recipe/schema.ts";
import type { Prepared } from "./prepare.ts";

export interface RunPlan {
  readonly base: { readonly folder: string; readonly parameters: number };
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
const EFFICIENCY = 0.7;

export async function planRun(
  recipe: Recipe,
  prepared: Prepared,
  engine: Engine,
): Promise<RunPlan> {
  const { augmented, parameters, context, stream, reportPlan, evalPlan } = prepared;
  const { batchSize, gradientAccumulationSteps, steps, evalEvery } = recipe;
  const tokensPerStep = batchSize * gradientAccumulationSteps * context;
  const evaluations = Math.ceil(steps / evalEvery);
  const forward = forwardFlops(prepared);
  // Backward repeats the forward's products once for the activations, and once for the weights where they train.
  const passes = 2 + Number(recipe.tune.includes("all")) + Number(recipe.recompute === true);
  const rate = EFFICIENCY * (await matMulRate(engine));
  const windows = 2 * reportPlan.windows.length + evaluations * evalPlan.windows.length;
  return {
    base: { folder: augmented.folder, parameters: parameters.base },
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
    seconds: {
      training: (steps * tokensPerStep * forward * passes) / rate,
      evaluation: (windows * context * forward) / rate,
    },
  };
}

/** Floating-point operations per token of the forward pass: two per weight of each product, and causal attention. */
function forwardFlops({ augmented: { model }, context }: Prepared): number {
  const { numLayers, numHeads, headDim, isTied } = model.config;
  let weights = isTied ? sizeOf(model.weights.get(model.inputEmbedding)!) : 0;
  for (const [name, shape] of model.weights)
    if (model.groupOf(name) === "matrices" || name === model.outputEmbedding)
      weights += sizeOf(shape);
  const attention = 4 * numLayers * numHeads * headDim * (context / 2);
  return 2 * weights + attention;
}

/** Floating-point operations per second of a 1024³ product, the best of five. */
async function matMulRate(engine: Engine): Promise<number> {
  const size = 1024;
  const product = matMul(input("x", [size, size], "F32"), parameter("w", [size, size]));
  const weights = new Map([["w", new Uint8Array(4 * size * size)]]);
  const program = await engine.compile({ sums: reduceSum(product, [0]) }, weights);
  const x = new Float32Array(size * size);
  let best = Number.POSITIVE_INFINITY;
  for (let i = 0; i < 5; i++) {
    const started = performance.now();
    await program.run({ x });
    best = Math.min(best, performance.now() - started);
  }
  await program.dispose();
  return (2 * size ** 3) / (best / 1000);
}
