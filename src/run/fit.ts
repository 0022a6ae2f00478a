// Whether a run fits in memory, and what it recomputes so that it does.

import { buildForward, natsOf } from "../augmented/graph.ts";
import { UserError } from "../core/errors.ts";
import { simplify } from "../graph/passes.ts";
import type { Recipe } from "../recipe/schema.ts";
import { buildTrainingGraph, type TrainingOptions } from "../train/step.ts";
import { sessionBytes } from "./memory.ts";
import type { Prepared } from "./prepare.ts";

/** What a run keeps in memory, in bytes. */
export interface MemoryParts {
  /** The program with the data, before training. */
  readonly program: number;
  /** Mapped from their file. */
  readonly weights: number;
  /** Values, moments and gradients of what trains. */
  readonly trained: number;
  /** Activations and what else its session holds: of a training step, and of scoring. */
  readonly training: number;
  readonly scoring: number;
}

export interface Fit {
  readonly recompute: NonNullable<TrainingOptions["recompute"]>;
  readonly memoryBytes: MemoryParts;
}

/** Value, two moments, the gradient, its sum over micro batches, and what the engine is fed. */
const COPIES_OF_TRAINED = 6;

/**
 * Recomputes whole blocks where the recipe says so, or where it leaves the choice and the run would not fit otherwise;
 * a run that cannot fit is refused, by part. `programBytes` is what the process holds now, `freeBytes` what else there is.
 */
export function fitRun(
  recipe: Recipe,
  prepared: Prepared,
  { programBytes, freeBytes }: { readonly programBytes: number; readonly freeBytes: number },
): Fit {
  const memoryOf = (recompute: Fit["recompute"]) =>
    memoryParts(recipe, prepared, programBytes, recompute);
  const fits = (parts: MemoryParts) => totalBytes(parts) - programBytes <= freeBytes;
  const recompute = recipe.recompute === true ? "blocks" : "cheap";
  const memoryBytes = memoryOf(recompute);
  if (fits(memoryBytes)) return { recompute, memoryBytes };
  const least = memoryOf("blocks");
  if (recipe.recompute === "auto" && fits(least))
    return { recompute: "blocks", memoryBytes: least };
  const megabytes = (bytes: number) => `${Math.ceil(bytes / 1e6)} MB`;
  const { weights, trained, training } = memoryBytes;
  throw new UserError(
    `the run needs about ${megabytes(totalBytes(memoryBytes))} and ${megabytes(programBytes + freeBytes)} are there: ` +
      `weights ${megabytes(weights)}, what trains ${megabytes(trained)}, activations ${megabytes(training)}`,
    {
      hint:
        recompute === "cheap" && fits(least)
          ? "--recompute makes it fit"
          : "lower --batch-size (and raise --gradient-accumulation-steps) or --context, or use --recompute",
    },
  );
}

/** All parts together: what training and scoring have held stays with them. */
export function totalBytes(parts: MemoryParts): number {
  return Object.values(parts).reduce((sum, bytes) => sum + bytes, 0);
}

function memoryParts(
  recipe: Recipe,
  { augmented, tensors, context, parameters }: Prepared,
  program: number,
  recompute: Fit["recompute"],
): MemoryParts {
  const window = { batchSize: recipe.batchSize, context };
  const names = tensors.map(({ name }) => name);
  const scoring = natsOf(buildForward(augmented, window, { trainable: new Set(names) }));
  const { precision } = recipe;
  const training = buildTrainingGraph(augmented, window, names, { precision, recompute });
  return {
    program,
    weights: [...augmented.weights.values()].reduce((sum, { byteLength }) => sum + byteLength, 0),
    trained: 4 * COPIES_OF_TRAINED * parameters.trained,
    training: sessionBytes(training),
    scoring: sessionBytes(simplify({ nats: scoring })),
  };
}
