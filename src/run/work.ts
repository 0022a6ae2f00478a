// A run at work: what all of it is handed, what it tells, and how it scores and stops.

import type { Engine } from "../engines/index.ts";
import type { EvaluationPlan } from "../evaluate/evaluation.ts";
import { openScorer } from "../evaluate/scorer.ts";
import type { WindowPlan } from "../evaluate/window-plan.ts";
import { simplify } from "../graph/passes.ts";
import { boundWeights, buildForward, natsOf } from "../model/graph.ts";
import type { OpenedModel } from "../model/opened.ts";
import type { StepMetrics } from "../train/loop.ts";
import { buildTrainingGraph, type TrainingOptions } from "../train/step.ts";
import type { Fit } from "./fit.ts";
import type { Prepared } from "./prepare.ts";

/** What happens on the way, for logs and progress. */
export type RunEvent = Readonly<
  | { kind: "note"; text: string }
  | { kind: "scored"; phase: string; windows: number; of: number }
  | ({ kind: "step"; steps: number; tokensPerSecond: number } & Omit<StepMetrics, "seconds">)
  | { kind: "evaluated"; step: number; lossNats: number }
  | { kind: "saved"; step: number; dir: string }
>;

export interface Listener {
  readonly onEvent: (event: RunEvent) => void;
  /** Stops the run: after the present step, or between two windows that are scored. */
  readonly signal: AbortSignal;
}

/** A run whose folder is locked and whose engine has started. */
export interface RunAtWork extends Prepared, Listener {
  readonly runDir: string;
  readonly engine: Engine;
  readonly fit: Fit;
  readonly isResumed: boolean;
  /** A folder in which runs that differ in what they train share what their base gives. */
  readonly sharedBase?: string | undefined;
  /** Of this process's part of the run: milliseconds of `performance.now()`. */
  readonly startedAt: number;
}

/** Where what a base gives is kept: with the run, and with others that began from it. */
export const keptIn = ({ runDir, sharedBase = runDir }: RunAtWork, baseSha256: string) =>
  baseSha256 === "random" ? [runDir] : [...new Set([runDir, sharedBase])];

/** What a run computes for each micro batch, training and scoring held-out text, cut as the engine wants it. */
export function graphsOf(
  { opened, tensors, shapes }: Pick<Prepared, "opened" | "tensors" | "shapes">,
  { tiling }: Pick<Engine, "tiling">,
  { batchSize, ...options }: { readonly batchSize: number } & TrainingOptions,
) {
  const names = tensors.map(({ name }) => name);
  const [training, scoring] = [shapes.training, shapes.scoring].map((of) => ({ ...of, batchSize }));
  const nats = natsOf(buildForward(opened, scoring!, { trainable: new Set(names), tiling }));
  return {
    training: buildTrainingGraph(opened, training!, names, { ...options, tiling }),
    scoring: simplify({ nats }),
  };
}

/** What of a model trains, with the values that it has when it is fed. */
export function present({ tensors }: Pick<RunAtWork, "tensors">, opened: OpenedModel) {
  const known = new Set([...opened.model.weights.keys(), ...boundWeights(opened).keys()]);
  const fed = tensors.filter(({ name }) => known.has(name));
  const feeds = Object.fromEntries(fed.map(({ name, values }) => [name, values]));
  return { feeds, trainable: new Set(Object.keys(feeds)) };
}

/** How any windows of a run are scored: told of, and stopped by the signal. */
export function scoring({ onEvent, signal }: Listener, phase: string, plan: EvaluationPlan) {
  const of = plan.groups.reduce((sum, group) => sum + group.windows.length, 0);
  const onBatch = ({ windows }: { readonly windows: number }) =>
    onEvent({ kind: "scored", phase, windows, of });
  return { signal, onBatch };
}

export type HeldOut = Awaited<ReturnType<typeof openHeldOut>>;

/** The held-out text, scored with the present values of the tensors that train. */
export async function openHeldOut(
  work: Pick<RunAtWork, "engine" | "shapes" | "tensors"> & {
    fit: Pick<Fit, "batchSize">;
  } & Listener,
  opened: OpenedModel,
) {
  const { feeds, trainable } = present(work, opened);
  const shape = { ...work.shapes.scoring, batchSize: work.fit.batchSize, trainable };
  const scorer = await openScorer(work.engine, opened, shape);
  return {
    /** Throws the signal's reason where it is stopped on the way. */
    score: (phase: string, plan: WindowPlan) =>
      scorer.score(plan.texts, plan.windows, { feeds, ...scoring(work, phase, plan) }),
    dispose: () => scorer.dispose(),
  };
}

export const isStop = (error: unknown, signal: AbortSignal) =>
  signal.aborted && error === signal.reason;
