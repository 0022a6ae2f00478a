// Whether a run fits in memory, and what it recomputes so that it does.

import { buildForward, natsOf } from "../model/graph.ts";
import { UserError } from "../core/errors.ts";
import { simplify } from "../graph/passes.ts";
import type { Outputs } from "../graph/tensor.ts";
import type { Recipe } from "../options/schema.ts";
import { buildTrainingGraph, type TrainingOptions } from "../train/step.ts";
import type { Engine } from "../engines/index.ts";
import type { Prepared } from "./prepare.ts";

/** What a run keeps in memory, in bytes. */
export interface MemoryParts {
  /** The program with the data and the engine. */
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
  /** Training and scoring are never in memory at once; each is compiled again when it is its turn. */
  readonly takesTurns: boolean;
  readonly memoryBytes: MemoryParts;
  readonly totalBytes: number;
  /** On a device with memory of its own; 0 without one. */
  readonly deviceBytes: number;
}

/** Where turns save less, the time that they take, up to a second or two for each evaluation, is worth more. */
const LEAST_SAVED_BYTES = 128e6;

/** Value, two moments, the gradient, its sum over micro batches, and what the engine is fed. */
const COPIES_OF_TRAINED = 6;

export interface Machine {
  /** What the process holds now. */
  readonly programBytes: number;
  /** What else there is. */
  readonly freeBytes: number;
  readonly engine: Pick<Engine, "tiling" | "room" | "estimate" | "mapsWeights">;
}

/**
 * Recomputes whole blocks where the recipe says so, or where it leaves the choice and the run would not fit otherwise;
 * a run that cannot fit is refused, by part.
 */
export function fitRun(recipe: Recipe, prepared: Prepared, machine: Machine): Fit {
  const fitOf = (recompute: Fit["recompute"]) => fitBy(recipe, prepared, machine, recompute);
  const { programBytes, freeBytes } = machine;
  const fits = ({ totalBytes }: Fit) => totalBytes - programBytes <= freeBytes;
  const asked = fitOf(recipe.recompute === true ? "blocks" : "cheap");
  if (fits(asked)) return asked;
  const least = fitOf("blocks");
  if (recipe.recompute === "auto" && fits(least)) return least;
  const megabytes = (bytes: number) => `${Math.ceil(bytes / 1e6)} MB`;
  const { weights, trained, training } = asked.memoryBytes;
  throw new UserError(
    `the run needs about ${megabytes(asked.totalBytes)} and ${megabytes(programBytes + freeBytes)} are there: ` +
      `weights ${megabytes(weights)}, what trains ${megabytes(trained)}, activations ${megabytes(training)}`,
    {
      hint:
        asked.recompute === "cheap" && fits(least)
          ? "--recompute makes it fit"
          : "lower --batch-size (and raise --gradient-accumulation-steps) or --context, or use --recompute",
    },
  );
}

function fitBy(
  recipe: Recipe,
  prepared: Prepared,
  { programBytes, engine }: Machine,
  recompute: Fit["recompute"],
): Fit {
  const graphs = graphsOf(recipe, prepared, engine, recompute);
  const [training, scoring] = [engine.estimate(graphs.training), engine.estimate(graphs.scoring)];
  const memoryBytes = {
    program: programBytes + engine.room.host,
    weights: [...prepared.opened.weights.values()].reduce((sum, w) => sum + w.byteLength, 0),
    trained: 4 * COPIES_OF_TRAINED * prepared.parameters.trained,
    training: training.host,
    scoring: scoring.host,
  };
  const { program, weights, trained } = memoryBytes;
  // Weights that two sessions map count twice.
  const saved = weights + Math.min(memoryBytes.training, memoryBytes.scoring);
  const takesTurns = engine.mapsWeights && saved >= LEAST_SAVED_BYTES;
  const together = (a: number, b: number) => (takesTurns ? Math.max(a, b) : a + b);
  const sessions = together(memoryBytes.training, memoryBytes.scoring);
  return {
    recompute,
    takesTurns,
    memoryBytes,
    totalBytes: program + weights + trained + sessions,
    deviceBytes: engine.room.device + together(training.device, scoring.device),
  };
}

/** What a run computes for each micro batch, training and scoring held-out text, cut as the engine wants it. */
export function graphsOf(
  { batchSize, precision }: Recipe,
  { opened, tensors, context }: Prepared,
  { tiling }: Pick<Engine, "tiling">,
  recompute: Fit["recompute"],
): { readonly training: Outputs; readonly scoring: Outputs } {
  const window = { batchSize, context };
  const names = tensors.map(({ name }) => name);
  const nats = natsOf(buildForward(opened, window, { trainable: new Set(names), tiling }));
  return {
    training: buildTrainingGraph(opened, window, names, { precision, recompute, tiling }),
    scoring: simplify({ nats }),
  };
}
