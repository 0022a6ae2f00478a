// A run from end to end: before, training, after, report and final model. Killed at any moment, it continues from its
// last checkpoint to the same result.

import { rm } from "node:fs/promises";
import { join } from "node:path";
import { UserError } from "../core/errors.ts";
import { mixedBatches } from "../data/mixture.ts";
import { numScored, type Window } from "../data/windows.ts";
import type { Engine } from "../engines/index.ts";
import { checkFinite, evaluate } from "../evaluate/evaluation.ts";
import { type TokenLosses, tokenLosses } from "../evaluate/details.ts";
import { estimate, pairedDelta, type RunReport } from "../evaluate/results.ts";
import { openScorer, type WindowLoss } from "../evaluate/scorer.ts";
import type { WindowPlan } from "../evaluate/tasks/perplexity.ts";
import { folded, writeAdapter, writeModelFolder } from "../export/model-folder.ts";
import { identityOf, type Provenance, provenanceOf } from "../export/provenance.ts";
import { replaceFolder, writeFileAtomic } from "../files/atomic.ts";
import { readJsonIfSound, writeJson } from "../files/json.ts";
import { modelFiles } from "../files/names.ts";
import {
  appendLine,
  latestSnapshot,
  pruneSnapshots,
  runFiles,
  saveSnapshot,
  snapshotDir,
  truncateMetrics,
} from "../files/run-folder.ts";
import { adapterJson, type BaseIdentity, openModel, withSnapshot } from "../model/open.ts";
import { readInsertions } from "../model/match.ts";
import { type InsertionKind, insertionsOf } from "../insertions/kinds.ts";
import { recipeToYaml } from "../options/load.ts";
import { changesBase } from "../train/groups.ts";
import { INITIAL_STATE, type LoopCallbacks, type StepMetrics, trainLoop } from "../train/loop.ts";
import { restoreTensors, type RunState, toSnapshot } from "../train/snapshot.ts";
import { openTrainingStep } from "../train/step.ts";
import type { Fit } from "./fit.ts";
import { leavePage } from "./page.ts";
import { type Prepared, sourceFacts } from "./prepare.ts";

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
  readonly fit: Pick<Fit, "batchSize" | "gradientAccumulationSteps" | "precision" | "recompute">;
  readonly isResumed: boolean;
  /** Of this process's part of the run: milliseconds of `performance.now()`. */
  readonly startedAt: number;
  readonly onEvent: (event: RunEvent) => void;
  /** Stops the run: after the present step, or between two windows that are scored. */
  readonly signal: AbortSignal;
}

export type Outcome =
  | { readonly outcome: "finished"; readonly report: RunReport }
  /** The step that was saved; null where the run was before its first or after its last. */
  | { readonly outcome: "interrupted"; readonly step: number | null };

export async function trainAndReport(work: RunAtWork): Promise<Outcome> {
  const { recipe, runDir, parameters, reportPlan, onEvent } = work;
  const { batchSize, gradientAccumulationSteps, precision } = work.fit;
  await writeFileAtomic(join(runDir, runFiles.recipe), recipeToYaml(recipe));
  const own = await identityOf(work.base);
  const baseSha256 = own.sha256!;
  // What was inserted before belongs to the base that it was put on.
  const origin: Provenance =
    insertionsOf(work.base).length > 0
      ? await provenanceOf(work.base)
      : { base: own, hasTrainedBase: false };
  const base = origin.hasTrainedBase === false ? origin.base : own;
  const heldOut = await openHeldOut(work);
  // In this order: what is scored before is the base, a checkpoint comes into the tensors after.
  const before = await scoreBase(work, baseSha256, heldOut);
  const trained = await train(work, base, heldOut, before.losses);
  await heldOut.dispose();
  const { outcome, loop } = trained;
  if (outcome === "interrupted")
    return { outcome, step: loop === INITIAL_STATE ? null : loop.step };
  if (outcome === "stopped early")
    onEvent({ kind: "note", text: `stopped early at step ${loop.step}, best at ${loop.bestStep}` });

  const finalStep = recipe.earlyStopping === "off" ? loop.step : loop.bestStep;
  const { result, losses, temperatures, observed } = await finish(work, finalStep, origin);
  const report: RunReport = {
    before: reportPlan.resultOf(before.losses, baseSha256),
    after: result,
    delta: pairedDelta(before.losses, losses),
    parameters,
    temperatures,
    recipe,
    sources: sourceFacts(work),
    device: work.engine.description,
    chosen: { batchSize, gradientAccumulationSteps, precision },
    steps: loop.step,
    finalStep,
    tokensPerSecond: trained.tokensPerSecond,
    peakRssBytes: process.resourceUsage().maxRSS * 1024,
    elapsedSeconds: trained.elapsedSeconds(),
  };
  const each = { nats: losses.map(({ nats }) => nats), numTokens: losses.map((w) => w.numTokens) };
  await writeFileAtomic(join(runDir, runFiles.after), `${JSON.stringify(each)}\n`);
  await leavePage(runDir, work, report, { observed, before: before.tokens, losses });
  await writeJson(join(runDir, runFiles.report), report);
  return { outcome: "finished", report };
}

/** The base's losses on the report's windows, scored once in a run and kept with what they, and the run, depend on. */
async function scoreBase(
  work: RunAtWork,
  base: string,
  heldOut: HeldOut,
): Promise<{ losses: readonly WindowLoss[]; tokens?: TokenLosses }> {
  const { runDir, sha256, reportPlan } = work;
  const path = join(runDir, runFiles.before);
  const inputs = { base, ...sha256 };
  const stored = await readJsonIfSound(path);
  if (stored) {
    const known = (stored["sha256"] ?? {}) as Readonly<Record<string, unknown>>;
    for (const [name, sha256] of Object.entries(inputs))
      if (known[name] !== sha256)
        throw new UserError(`${runDir}: the content of ${name} has changed since the run began`, {
          hint: "bring it back to resume, or start a new run",
        });
    // Early runs kept none of single tokens.
    const { nats, tokens } = stored as { nats?: unknown; tokens?: TokenLosses };
    if (Array.isArray(nats) && nats.length === reportPlan.windows.length) {
      const losses = reportPlan.windows.map((window, i) => {
        return { nats: nats[i] as number, numTokens: numScored([window]) };
      });
      return { losses, ...(tokens && { tokens }) };
    }
  }
  const losses = await heldOut.score("before", reportPlan);
  checkFinite(losses, reportPlan.windows);
  const nats = losses.map((loss) => loss.nats);
  const tokens = tokenLosses(reportPlan, losses);
  await writeFileAtomic(path, `${JSON.stringify({ sha256: inputs, nats, tokens })}\n`);
  return { losses, tokens };
}

/** Writes a step's weights to final/, and scores it as `ssa eval` does: from the files, so that the report says what they give. */
async function finish(work: RunAtWork, step: number, { base, hasTrainedBase }: Provenance) {
  const { recipe, runDir, reportPlan } = work;
  const path = join(runDir, runFiles.final);
  const isAdapter = recipe.final === "adapter";
  const trained = await withSnapshot(work.opened, snapshotDir(runDir, step));
  const provenance = { base, hasTrainedBase: changesBase(recipe) || hasTrainedBase };
  await replaceFolder(path, async (folder) => {
    if (isAdapter) return writeAdapter(folder, trained, base);
    // LoRA is merged, so that any program reads it; temperatures stay, of which constant ones could be as well.
    const mergedPath = join(folder, "merged.safetensors");
    const merged = await folded(trained, mergedPath, ["lora"]);
    const isMerged = merged !== trained;
    const made = { ...provenance, hasTrainedBase: isMerged || provenance.hasTrainedBase };
    await writeModelFolder(folder, merged, made);
    await rm(mergedPath, { force: true });
    if (work.chatTemplate)
      await writeFileAtomic(join(folder, modelFiles.chatTemplate), work.chatTemplate);
  });
  const model = isAdapter
    ? { ...work.base, ...(await readInsertions(path, trained.model)) }
    : await openModel(path);
  const how = { batchSize: work.fit.batchSize, ...scoring(work, "after", reportPlan) };
  return evaluate(work.engine, model, reportPlan, how);
}

/** Trains the prepared tensors in place; adapters say that they belong to `base`. */
async function train(
  work: RunAtWork,
  base: BaseIdentity,
  heldOut: HeldOut,
  before: readonly WindowLoss[],
) {
  const { recipe, runDir, opened, tensors, shapes, onEvent, signal } = work;
  const { batchSize, gradientAccumulationSteps, precision, recompute } = work.fit;
  const start = await startOrResume(work);
  const names = tensors.map(({ name }) => name);
  const shape = { ...shapes.training, batchSize };
  const options = { precision, recompute };
  const step = await openTrainingStep(work.engine, opened, shape, names, options);
  const batches = mixedBatches(work.sources, start.cursor);
  const metricsPath = join(runDir, runFiles.metrics);
  // The cursor is that of the last whole step: the next one may have drawn its batches and failed.
  let { numTokens, trainSeconds, cursor } = start;
  const elapsedSeconds = () => start.elapsedSeconds + (performance.now() - work.startedAt) / 1000;
  const callbacks: LoopCallbacks = {
    nextBatch: () => batches.next(batchSize),
    shouldStop: () => signal.aborted,
    onStep: async ({ seconds, ...metrics }) => {
      numTokens += metrics.numTokens;
      trainSeconds += seconds;
      cursor = batches.cursor();
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
      const snapshot = toSnapshot(tensors, { loop, cursor, ...counters });
      const configOf = (kind: InsertionKind) => opened[kind] && adapterJson(kind, opened, base);
      const configs = { adapterConfig: configOf("temperatures"), loraConfig: configOf("lora") };
      const dir = await saveSnapshot(runDir, snapshot, configs);
      const best = recipe.earlyStopping === "off" ? [] : [loop.bestStep];
      await pruneSnapshots(runDir, recipe.keepLast, best);
      onEvent({ kind: "saved", step: loop.step, dir });
    },
  };
  const how = { ...recipe, gradientAccumulationSteps };
  const { outcome, state: loop } = await trainLoop(step, tensors, how, callbacks, start.loop);
  await step.dispose();
  return { outcome, loop, tokensPerSecond: numTokens / trainSeconds, elapsedSeconds };
}

/** Whether work ended because its signal stopped it. */
export const isStop = (error: unknown, signal: AbortSignal) =>
  signal.aborted && error === signal.reason;

type HeldOut = Awaited<ReturnType<typeof openHeldOut>>;

/** The held-out text, scored with the present values of the tensors that train. */
async function openHeldOut(work: RunAtWork) {
  const { fit, opened, tensors, shapes } = work;
  const feeds = Object.fromEntries(tensors.map(({ name, values }) => [name, values]));
  const trainable = new Set(Object.keys(feeds));
  const shape = { ...shapes.scoring, batchSize: fit.batchSize, trainable };
  const scorer = await openScorer(work.engine, opened, shape);
  return {
    /** Throws the signal's reason where it is stopped on the way. */
    score: (phase: string, plan: WindowPlan) =>
      scorer.score(plan.texts, plan.windows, { feeds, ...scoring(work, phase, plan) }),
    dispose: () => scorer.dispose(),
  };
}

/** How any windows of a run are scored: told of, and stopped by the signal. */
const scoring = ({ onEvent, signal }: RunAtWork, phase: string, plan: WindowPlan) => ({
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
