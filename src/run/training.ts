// The middle of a run: from its last checkpoint, or from nothing, to its last step, with metrics and checkpoints.

import { join } from "node:path";
import { trainingBatches, type Window } from "../data/windows.ts";
import type { Engine } from "../engines/index.ts";
import { estimate } from "../evaluate/results.ts";
import { openScorer, type WindowLoss } from "../evaluate/scorer.ts";
import type { WindowPlan } from "../evaluate/tasks/perplexity.ts";
import {
  appendLine,
  latestSnapshot,
  pruneSnapshots,
  runFiles,
  saveSnapshot,
  truncateMetrics,
} from "../files/run-folder.ts";
import { adapterJson, type BaseIdentity } from "../model/open.ts";
import { INITIAL_STATE, type LoopCallbacks, type StepMetrics, trainLoop } from "../train/loop.ts";
import { restoreTensors, type RunState, toSnapshot } from "../train/snapshot.ts";
import { openTrainingStep } from "../train/step.ts";
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

/** A run whose folder is locked and whose engine has started. */
export interface RunAtWork extends Prepared {
  readonly runDir: string;
  readonly engine: Engine;
  readonly fit: Pick<Fit, "recompute">;
  readonly isResumed: boolean;
  /** Of this process's part of the run: milliseconds of `performance.now()`. */
  readonly startedAt: number;
  readonly onEvent: (event: RunEvent) => void;
  /** Stops the run: after the present step, or between two windows that are scored. */
  readonly signal: AbortSignal;
}

/** Trains the prepared tensors in place; adapters say that they belong to `base`. */
export async function train(
  work: RunAtWork,
  base: BaseIdentity,
  heldOut: HeldOut,
  before: readonly WindowLoss[],
) {
  const { recipe, runDir, opened, tensors, context, onEvent, signal } = work;
  const { batchSize, precision, earlyStopping } = recipe;
  const start = await startOrResume(work);
  const names = tensors.map(({ name }) => name);
  const options = { precision, recompute: work.fit.recompute };
  const shape = { batchSize, context };
  const step = await openTrainingStep(work.engine, opened, shape, names, options);
  const batches = trainingBatches(work.stream, { context, cursor: start.cursor });
  const metricsPath = join(runDir, runFiles.metrics);
  let { numTokens, trainSeconds } = start;
  const elapsedSeconds = () => start.elapsedSeconds + (performance.now() - work.startedAt) / 1000;
  const callbacks: LoopCallbacks = {
    nextBatch: () => batches.next(batchSize),
    shouldStop: () => signal.aborted,
    onStep: async ({ seconds, ...metrics }) => {
      numTokens += metrics.numTokens;
      trainSeconds += seconds;
      const record = { ...metrics, tokensPerSecond: metrics.numTokens / seconds };
      onEvent({ kind: "step", steps: recipe.steps, ...record });
      await appendLine(metricsPath, { kind: "step", ...record });
    },
    evaluate: async (at) => {
      const known = at === 0 ? subset(before, work.reportPlan, work.evalPlan) : undefined;
      const scored = known ?? heldOut.score("evaluation", work.evalPlan);
      const losses = await Promise.resolve(scored).catch((error: unknown) => {
        if (isStop(error, signal)) return null;
        throw error;
      });
      if (losses === null) return null;
      const { lossNats, perplexity } = estimate(losses);
      onEvent({ kind: "evaluated", step: at, lossNats });
      await appendLine(metricsPath, { kind: "evaluation", step: at, lossNats, perplexity });
      return lossNats;
    },
    save: async (loop) => {
      const counters = { numTokens, trainSeconds, elapsedSeconds: elapsedSeconds() };
      const snapshot = toSnapshot(tensors, { loop, cursor: batches.cursor(), ...counters });
      const insertion = opened.temperatures?.insertion;
      const adapterConfig = insertion && adapterJson(insertion, base);
      const dir = await saveSnapshot(runDir, snapshot, { adapterConfig });
      const best = earlyStopping === "off" ? [] : [loop.bestStep];
      await pruneSnapshots(runDir, recipe.keepLast, best);
      onEvent({ kind: "saved", step: loop.step, dir });
    },
  };
  const { outcome, state: loop } = await trainLoop(step, tensors, recipe, callbacks, start.loop);
  await step.dispose();
  return { outcome, loop, tokensPerSecond: numTokens / trainSeconds, elapsedSeconds };
}

/** Whether work ended because its signal stopped it. */
export const isStop = (error: unknown, signal: AbortSignal) =>
  signal.aborted && error === signal.reason;

export type HeldOut = Awaited<ReturnType<typeof openHeldOut>>;

/** The held-out text, scored with the present values of the tensors that train. */
export async function openHeldOut(work: RunAtWork) {
  const { recipe, opened, tensors, context } = work;
  const feeds = Object.fromEntries(tensors.map(({ name, values }) => [name, values]));
  const shape = { batchSize: recipe.batchSize, context, trainable: new Set(Object.keys(feeds)) };
  const scorer = await openScorer(work.engine, opened, shape);
  return {
    /** Throws the signal's reason where it is stopped on the way. */
    score: (phase: string, plan: WindowPlan) =>
      scorer.score(plan.texts, plan.windows, { feeds, ...scoring(work, phase, plan) }),
    dispose: () => scorer.dispose(),
  };
}

/** How any windows of a run are scored: told of, and stopped by the signal. */
export const scoring = ({ onEvent, signal }: RunAtWork, phase: string, plan: WindowPlan) => ({
  signal,
  onBatch: ({ windows }: { readonly windows: number }) =>
    onEvent({ kind: "scored", phase, windows, of: plan.windows.length }),
});

/** The run's state: of its last checkpoint, which is put into the tensors, or at step 0. */
async function startOrResume(work: RunAtWork): Promise<RunState> {
  const { recipe, runDir, isResumed, onEvent } = work;
  const note = (text: string) => onEvent({ kind: "note", text });
  const found = isResumed ? await latestSnapshot(runDir) : undefined;
  for (const { dir, reason } of found?.skipped ?? [])
    note(`${dir} is damaged (${reason}); the checkpoint before it is used`);
  if (isResumed && !found) note(`no checkpoint in ${runDir} yet: starting at step 0`);
  await truncateMetrics(runDir, found?.step ?? -1);
  if (!found) {
    const cursor = { seed: recipe.seed, epoch: 0, index: 0 };
    return { loop: INITIAL_STATE, cursor, numTokens: 0, trainSeconds: 0, elapsedSeconds: 0 };
  }
  await restoreTensors(found.dir, work.tensors);
  note(`resuming at step ${found.step} from ${found.dir}`);
  return found.state as RunState;
}

/** The losses of one plan's windows taken from another's, where all are among them. */
function subset(losses: readonly WindowLoss[], from: WindowPlan, to: WindowPlan) {
  const key = ({ text, start }: Window) => `${text} ${start}`;
  const known = new Map(from.windows.map((window, i) => [key(window), losses[i]!]));
  const found = to.windows.map((window) => known.get(key(window)));
  return found.every((loss) => loss !== undefined) ? found : undefined;
}
