// What a run would do, before it does it: whether it fits in memory, what it recomputes so that it does, and its plan.

import { freemem } from "node:os";
import { UserError } from "../core/errors.ts";
import type { Engine } from "../engines/index.ts";
import { simplify } from "../graph/passes.ts";
import { buildForward, natsOf } from "../model/graph.ts";
import { withEngine } from "../model/places.ts";
import { buildTrainingGraph, type TrainingOptions } from "../train/step.ts";
import type { Prepared } from "./prepare.ts";

export type Recompute = NonNullable<TrainingOptions["recompute"]>;
export type Fit = ReturnType<typeof fitBy>;
export type OnEngine = <T>(work: (engine: Engine, fit: Fit) => Promise<T>) => Promise<T>;

/** Where turns save less, the time that they take, up to a second or two for each evaluation, is worth more. */
const LEAST_SAVED_BYTES = 128e6;

/** Value, two moments, the gradient, its sum over micro batches, and what the engine is fed. */
const COPIES_OF_TRAINED = 6;

const SMALLER =
  "lower --batch-size (and raise --gradient-accumulation-steps) or --context, or use --recompute";

export interface Machine {
  /** What the process holds now. */
  readonly programBytes: number;
  /** What else there is. */
  readonly freeBytes: number;
  readonly engine: Pick<Engine, "tiling" | "room" | "estimate" | "mapsWeights">;
}

/** Starts a run's engine, which ends with the work. */
export const onEngineOf =
  (run: Prepared): OnEngine =>
  (work) =>
    withEngine(run.recipe, run.places, (engine) => {
      const programBytes = process.memoryUsage.rss();
      return work(engine, fitRun(run, { programBytes, freeBytes: freemem(), engine }));
    });

/**
 * Recomputes whole blocks where the recipe says so, or where it leaves the choice and the run would not fit otherwise;
 * a run that cannot fit is refused, by part.
 */
export function fitRun(run: Prepared, machine: Machine): Fit {
  const { programBytes, freeBytes } = machine;
  const fits = ({ totalBytes }: Fit) => totalBytes - programBytes <= freeBytes;
  const asked = fitBy(run, machine, run.recipe.recompute === true ? "blocks" : "cheap");
  if (fits(asked)) return asked;
  const least = fitBy(run, machine, "blocks");
  if (run.recipe.recompute === "auto" && fits(least)) return least;
  const megabytes = (bytes: number) => `${Math.ceil(bytes / 1e6)} MB`;
  const { weights, trained, training } = asked.memoryBytes;
  throw new UserError(
    `the run needs about ${megabytes(asked.totalBytes)} and ${megabytes(programBytes + freeBytes)} are there: ` +
      `weights ${megabytes(weights)}, what trains ${megabytes(trained)}, activations ${megabytes(training)}`,
    { hint: asked.recompute === "cheap" && fits(least) ? "--recompute makes it fit" : SMALLER },
  );
}

export type RunPlan = Awaited<ReturnType<typeof planRun>>;

/** As `--dry-run` shows. */
export const planRun = (run: Prepared) =>
  onEngineOf(run)(async (engine, fit) => {
    const { recipe, opened, parameters, context, heldOut, reportPlan, evalPlan } = run;
    const { base, trained, added, share } = parameters;
    const { batchSize, gradientAccumulationSteps, steps, evalEvery } = recipe;
    const trainTokens = run.training.stream.tokens.length;
    const rowsPerStep = batchSize * gradientAccumulationSteps;
    const tokensPerStep = rowsPerStep * context;
    const { facts: packing } = run.training;
    return {
      base: { name: recipe.base, folder: opened.folder, parameters: base },
      trained: { parameters: trained, added, share },
      data: { trainTokens, epochs: (steps * rowsPerStep) / packing.rows, heldOut, packing },
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

/** What a run keeps in memory, in bytes. */
function fitBy(run: Prepared, { programBytes, engine }: Machine, recompute: Recompute) {
  const graphs = graphsOf(run, engine, recompute);
  const [training, scoring] = [engine.estimate(graphs.training), engine.estimate(graphs.scoring)];
  const memoryBytes = {
    /** The program with the data and the engine. */
    program: programBytes + engine.room.host,
    /** Mapped from their file. */
    weights: [...run.opened.weights.values()].reduce((sum, w) => sum + w.byteLength, 0),
    /** Values, moments and gradients of what trains. */
    trained: 4 * COPIES_OF_TRAINED * run.parameters.trained,
    /** Activations and what else its session holds: of a training step, and of scoring. */
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
    /** Training and scoring are never in memory at once; each is compiled again when it is its turn. */
    takesTurns,
    memoryBytes,
    totalBytes: program + weights + trained + sessions,
    /** On a device with memory of its own; 0 without one. */
    deviceBytes: engine.room.device + together(training.device, scoring.device),
  };
}

/** What a run computes for each micro batch, training and scoring held-out text, cut as the engine wants it. */
export function graphsOf(
  { recipe: { precision }, opened, tensors, shapes }: Prepared,
  { tiling }: Pick<Engine, "tiling">,
  recompute: Recompute,
) {
  const names = tensors.map(({ name }) => name);
  const nats = natsOf(buildForward(opened, shapes.scoring, { trainable: new Set(names), tiling }));
  return {
    training: buildTrainingGraph(opened, shapes.training, names, { precision, recompute, tiling }),
    scoring: simplify({ nats }),
  };
}
