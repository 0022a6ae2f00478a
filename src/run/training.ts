// The middle of a run: from its last checkpoint, or from nothing, to its last step, with metrics and checkpoints.

import { join } from "node:path";
import { trainingBatches } from "../data/batches.ts";
import type { Window } from "../data/windows.ts";
import type { Engine } from "../engines/index.ts";
import { estimate } from "../evaluate/estimates.ts";
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
import { adapterJson, type BaseIdentity } from "../model/model.ts";
import { INITIAL_STATE, type StepMetrics, trainLoop } from "../train/loop.ts";
import { restoreTensors, type RunState, toSnapshot } from "../train/snapshot.ts";
import { openTrainingStep } from "../train/step.ts";
import type { Fit } from "./fit.ts";
import type { Prepared } from "./prepare.ts";

/** What happens on the way, for logs and progress. */
export type RunEvent =
  | { readonly kind: "note"; readonly text: string }
  | {
      readonly kind: "scored";
      readonly phase: string;
      readonly windows: number;
      readonly of: number;
    }
  | ({
      readonly kind: "step";
      readonly steps: number;
      readonly tokensPerSecond: number;
    } & Omit<StepMetrics, "seconds">)
  | { readonly kind: "evaluated"; readonly step: number; readonly lossNats: number }
  | { readonly kind: "saved"; readonly step: number; readonly dir: string };

/** A run at work: its folder is locked, its engine started. */
export interface RunAtWork {
  readonly run: Prepared;
  readonly runDir: string;
  readonly engine: Engine;
  readonly fit: Pick<Fit, "recompute">;
  readonly isResumed: boolean;
  readonly onEvent: (event: RunEvent) => void;
  /** Stops the run: after the present step, or between two windows that are scored. */
  readonly signal: AbortSignal;
}

interface Beginning {
  /** What adapters say that they belong to. */
  readonly base: BaseIdentity;
  readonly heldOut: HeldOut;
  readonly before: readonly WindowLoss[];
  readonly start: RunState;
  /** Since the run began, without the time between an interruption and its end. */
  readonly elapsedSeconds: () => number;
}

/** Trains the prepared tensors in place. */
export async function train(
  { run, runDir, engine, fit, onEvent, signal }: RunAtWork,
  { base, heldOut, before, start, elapsedSeconds }: Beginning,
) {
  const { recipe, opened, tensors, context, reportPlan, evalPlan } = run;
  const { batchSize, precision, earlyStopping } = recipe;
  const names = tensors.map(({ name }) => name);
  const options = { precision, recompute: fit.recompute };
  const step = await openTrainingStep(engine, opened, { batchSize, context }, names, options);
  const batches = trainingBatches(run.stream, { context, cursor: start.cursor });
  const metricsPath = join(runDir, runFiles.metrics);
  let { numTokens, trainSeconds } = start;
  const callbacks = {
    nextBatch: () => batches.next(batchSize),
    shouldStop: () => signal.aborted,
    onStep: async ({ seconds, ...metrics }: StepMetrics) => {
      numTokens += metrics.numTokens;
      trainSeconds += seconds;
      const record = { ...metrics, tokensPerSecond: metrics.numTokens / seconds };
      onEvent({ kind: "step", steps: recipe.steps, ...record });
      await appendLine(metricsPath, { kind: "step", ...record });
    },
    evaluate: async (at: number) => {
      const known = at === 0 ? subset(before, reportPlan, evalPlan) : undefined;
      const losses =
        known ??
        (await heldOut.score("evaluation", evalPlan).catch((error: unknown) => {
          if (isStop(error, signal)) return null;
          throw error;
        }));
      if (losses === null) return null;
      const { lossNats, perplexity } = estimate(losses);
      onEvent({ kind: "evaluated", step: at, lossNats });
      await appendLine(metricsPath, { kind: "evaluation", step: at, lossNats, perplexity });
      return lossNats;
    },
    save: async (loop: RunState["loop"]) => {
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
  return { outcome, loop, numTokens, trainSeconds };
}

/** Whether work ended because its signal stopped it. */
export const isStop = (error: unknown, signal: AbortSignal) =>
  signal.aborted && error === signal.reason;

type HeldOut = Awaited<ReturnType<typeof openHeldOut>>;

/** The held-out text, scored with the present values of the tensors that train. */
export async function openHeldOut({ run, engine, onEvent, signal }: RunAtWork) {
  const { recipe, opened, tensors, context } = run;
  const feeds = Object.fromEntries(tensors.map(({ name, values }) => [name, values]));
  const shape = { batchSize: recipe.batchSize, context };
  const trainable = new Set(Object.keys(feeds));
  const scorer = await openScorer(engine, opened, { ...shape, trainable });
  /** Throws the signal's reason where it is stopped on the way. */
  const score = (phase: string, { texts, windows }: WindowPlan) => {
    const onBatch = (done: { readonly windows: number }) =>
      onEvent({ kind: "scored", phase, windows: done.windows, of: windows.length });
    return scorer.score(texts, windows, { feeds, signal, onBatch });
  };
  return { score, dispose: () => scorer.dispose() };
}

/** The run's state: of its last checkpoint, which is put into the tensors, or at step 0. */
export async function startOrResume({
  run: { recipe, tensors },
  runDir,
  isResumed,
  onEvent,
}: RunAtWork): Promise<RunState> {
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
  await restoreTensors(found.dir, tensors);
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
