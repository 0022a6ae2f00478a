// A whole fine-tuning run: before, training with checkpoints, after, report and final model. Killed at any moment, it
// continues from its last checkpoint to the same result.

import { existsSync } from "node:fs";
import { mkdir } from "node:fs/promises";
import { join } from "node:path";
import { trainingBatches } from "../data/windows.ts";
import { type Engine, takingTurns } from "../engines/index.ts";
import { estimate, pairedDelta } from "../evaluate/estimates.ts";
import { openScorer, type WindowLoss } from "../evaluate/scorer.ts";
import { writeFailure, writeFileAtomic } from "../files/atomic.ts";
import {
  appendLine,
  latestSnapshot,
  lockRun,
  pruneSnapshots,
  removeLeftovers,
  runFiles,
  saveSnapshot,
  truncateMetrics,
} from "../files/run-folder.ts";
import { writeJson } from "../files/json.ts";
import { adapterJson, type BaseIdentity } from "../model/model.ts";
import { identityOf, type Provenance, provenanceOf } from "../export/provenance.ts";
import type { Recipe } from "../options/schema.ts";
import { recipeToYaml } from "../options/load.ts";
import type { RunReport } from "../evaluate/results.ts";
import { INITIAL_STATE, type StepMetrics, trainLoop } from "../train/loop.ts";
import { openTrainingStep } from "../train/step.ts";
import { scoreBase, subset } from "./before.ts";
import type { WindowPlan } from "../evaluate/tasks/perplexity.ts";
import { finishRun } from "./finish.ts";
import { finishedReport, refuseUsed } from "./folder.ts";
import type { Fit } from "./fit.ts";
import type { Prepared } from "./prepare.ts";
import { type RunState, restoreTensors, toSnapshot } from "../train/snapshot.ts";

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

export interface FinetuneOptions {
  readonly recipe: Recipe;
  readonly runDir: string;
  readonly prepared: Prepared;
  readonly engine: Engine;
  /** As `fitRun` chose. */
  readonly fit: Pick<Fit, "recompute" | "takesTurns">;
  readonly isResumed: boolean;
  readonly onEvent: (event: RunEvent) => void;
  /** Stops the run: after the present step, or between two windows that are scored. */
  readonly signal: AbortSignal;
  /** Milliseconds. */
  readonly now: () => number;
  readonly peakRssBytes: () => number;
}

export type FinetuneResult =
  | { readonly outcome: "finished"; readonly report: RunReport }
  /** The step that was saved; null where the run was before its first or after its last. */
  | { readonly outcome: "interrupted"; readonly step: number | null };

/** Trains, or continues to train, the prepared run in `runDir`, which is locked meanwhile. */
export async function finetune(options: FinetuneOptions): Promise<FinetuneResult> {
  const { runDir, isResumed, signal } = options;
  await mkdir(runDir, { recursive: true }).catch((error: unknown) => {
    throw writeFailure(runDir, error);
  });
  const lock = await lockRun(runDir);
  try {
    // Again, now that nobody else can: another process may have been here since.
    if (!isResumed) await refuseUsed(runDir);
    await removeLeftovers(runDir);
    const report = isResumed ? await finishedReport(runDir) : undefined;
    if (report) return { outcome: "finished", report };
    const { engine, fit } = options;
    return await trainAndReport(
      fit.takesTurns ? { ...options, engine: takingTurns(engine) } : options,
    );
  } catch (error) {
    if (signal.aborted && error === signal.reason) return { outcome: "interrupted", step: null };
    throw error;
  } finally {
    await lock.release();
  }
}

async function trainAndReport(options: FinetuneOptions): Promise<FinetuneResult> {
  const { recipe, runDir, prepared, engine, onEvent, now } = options;
  const { reportPlan, parameters } = prepared;
  const started = now();
  const recipePath = join(runDir, runFiles.recipe);
  if (!existsSync(recipePath)) await writeFileAtomic(recipePath, recipeToYaml(recipe));
  const own = await identityOf(prepared.base);
  const baseSha256 = own.sha256!;
  // Temperatures that were there before belong to the base that they were put on.
  const origin: Provenance = prepared.base.temperatures
    ? await provenanceOf(prepared.base)
    : { base: own, hasTrainedBase: false };
  const base = origin.hasTrainedBase === false ? origin.base : own;
  const heldOut = await openHeldOut(options);
  // In this order: what is scored before is the base, a checkpoint comes into the tensors after.
  const before = await scoreBase(options, baseSha256, () => heldOut.score("before", reportPlan));
  const start = await startOrResume(options);
  const elapsedSeconds = () => start.state.elapsedSeconds + (now() - started) / 1000;
  const trained = await train(options, { base, heldOut, before, elapsedSeconds, ...start });
  await heldOut.dispose();
  const { outcome, loop, numTokens, trainSeconds } = trained;
  if (outcome === "interrupted") return { outcome, step: trained.lastDir ? loop.step : null };
  if (outcome === "stopped early")
    onEvent({ kind: "note", text: `stopped early at step ${loop.step}, best at ${loop.bestStep}` });

  const { after, losses, finalStep, temperatures } = await finishRun(options, loop, origin);
  const report: RunReport = {
    before: reportPlan.resultOf(before, baseSha256),
    after,
    delta: pairedDelta(before, losses),
    parameters: {
      base: parameters.base,
      added: parameters.added,
      share: parameters.added / parameters.base,
    },
    temperatures,
    recipe,
    device: engine.description,
    steps: loop.step,
    finalStep,
    tokensPerSecond: numTokens / trainSeconds,
    peakRssBytes: options.peakRssBytes(),
    elapsedSeconds: elapsedSeconds(),
  };
  await writeJson(join(runDir, runFiles.report), report);
  return { outcome: "finished", report };
}

interface TrainingInputs {
  /** What adapters say that they belong to. */
  readonly base: BaseIdentity;
  readonly heldOut: HeldOut;
  readonly before: readonly WindowLoss[];
  readonly state: RunState;
  /** The checkpoint that the state is from. */
  readonly lastDir?: string;
  readonly elapsedSeconds: () => number;
}

/** Trains the prepared tensors in place, with metrics and checkpoints in the run folder. */
async function train(
  { recipe, runDir, prepared, engine, fit, onEvent, now, signal }: FinetuneOptions,
  { base, heldOut, before, state, elapsedSeconds, ...start }: TrainingInputs,
) {
  const { opened, tensors, context, reportPlan, evalPlan } = prepared;
  const { batchSize, earlyStopping } = recipe;
  const names = tensors.map(({ name }) => name);
  const step = await openTrainingStep(engine, opened, { batchSize, context }, names, {
    precision: recipe.precision,
    recompute: fit.recompute,
  });
  const batches = trainingBatches(prepared.stream, { context, cursor: state.cursor });
  const metricsPath = join(runDir, runFiles.metrics);
  let { lastDir } = start;
  let { numTokens, trainSeconds } = state;
  const { outcome, state: loop } = await trainLoop(
    step,
    tensors,
    { ...recipe, patience: earlyStopping === "off" ? null : earlyStopping.patience },
    {
      nextBatch: () => batches.next(batchSize),
      shouldStop: () => signal.aborted,
      now,
      onStep: async ({ seconds, ...metrics }) => {
        numTokens += metrics.numTokens;
        trainSeconds += seconds;
        const record = { ...metrics, tokensPerSecond: metrics.numTokens / seconds };
        onEvent({ kind: "step", steps: recipe.steps, ...record });
        await appendLine(metricsPath, { kind: "step", ...record });
      },
      evaluate: async (at) => {
        const known = at === 0 ? subset(before, reportPlan, evalPlan) : undefined;
        const scored = known ?? unlessStopped(signal, heldOut.score("evaluation", evalPlan));
        const losses = await scored;
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
        lastDir = await saveSnapshot(runDir, snapshot, { adapterConfig });
        const best = earlyStopping === "off" ? [] : [loop.bestStep];
        await pruneSnapshots(runDir, recipe.keepLast, best);
        onEvent({ kind: "saved", step: loop.step, dir: lastDir });
      },
      lastCheckpoint: () => lastDir,
    },
    state.loop,
  );
  await step.dispose();
  return { outcome, loop, numTokens, trainSeconds, lastDir };
}

type HeldOut = Awaited<ReturnType<typeof openHeldOut>>;

/** The held-out text, scored with the present values of the tensors that train. */
async function openHeldOut({ recipe, prepared, engine, onEvent, signal }: FinetuneOptions) {
  const { opened, tensors, context } = prepared;
  const feeds = Object.fromEntries(tensors.map(({ name, values }) => [name, values]));
  const shape = { batchSize: recipe.batchSize, context };
  const trainable = new Set(Object.keys(feeds));
  const scorer = await openScorer(engine, opened, { ...shape, trainable });
  /** Throws the signal's reason where it is stopped on the way. */
  const score = (phase: string, { texts, windows }: WindowPlan) => {
    const of = windows.length;
    const onBatch = (done: { readonly windows: number }) =>
      onEvent({ kind: "scored", phase, windows: done.windows, of });
    return scorer.score(texts, windows, { feeds, signal, onBatch });
  };
  return { score, dispose: () => scorer.dispose() };
}

/** The run's state: of its last checkpoint, which is put into the tensors, or at step 0. */
async function startOrResume({
  recipe,
  runDir,
  prepared,
  isResumed,
  onEvent,
}: FinetuneOptions): Promise<{ readonly state: RunState; readonly lastDir?: string }> {
  const note = (text: string) => onEvent({ kind: "note", text });
  const found = isResumed ? await latestSnapshot(runDir) : undefined;
  for (const { dir, reason } of found?.skipped ?? [])
    note(`${dir} is damaged (${reason}); the checkpoint before it is used`);
  if (isResumed && !found) note(`no checkpoint in ${runDir} yet: starting at step 0`);
  await truncateMetrics(runDir, found?.step ?? -1);
  if (!found) {
    const cursor = { seed: recipe.seed, epoch: 0, index: 0 };
    const counters = { numTokens: 0, trainSeconds: 0, elapsedSeconds: 0 };
    return { state: { loop: INITIAL_STATE, cursor, ...counters } };
  }
  await restoreTensors(found.dir, prepared.tensors);
  note(`resuming at step ${found.step} from ${found.dir}`);
  return { state: found.state as RunState, lastDir: found.dir };
}

/** What the promise gives; null where the signal stopped it. */
async function unlessStopped<T>(signal: AbortSignal, promise: Promise<T>): Promise<T | null> {
  try {
    return await promise;
  } catch (error) {
    if (signal.aborted && error === signal.reason) return null;
    throw error;
  }
}
