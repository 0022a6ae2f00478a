// A run from end to end: before, training, after, report and final model. Killed at any moment, it continues from its
// last checkpoint to the same result.

import { rm } from "node:fs/promises";
import { availableParallelism } from "node:os";
import { join } from "node:path";
import { UserError } from "../core/errors.ts";
import { mixedBatches } from "../data/training.ts";
import { numScored } from "../data/windows.ts";
import { checkFinite, evaluatePlan } from "../evaluate/evaluation.ts";
import { type TokenLosses, tokenLosses } from "../evaluate/details.ts";
import type { RunReport } from "../evaluate/results.ts";
import type { Losses } from "../evaluate/scorer.ts";
import { estimate, pairedDelta } from "../evaluate/statistics.ts";
import { folded, writeAdapter, writeModelFolder } from "../export/model-folder.ts";
import { identityOf, type Provenance, provenanceOf } from "../export/provenance.ts";
import { replaceFolder, writeFileAtomic } from "../files/atomic.ts";
import { readJsonIfSound, writeJson } from "../files/json.ts";
import { modelFiles, runFiles } from "../files/names.ts";
import * as snapshots from "../files/run-folder.ts";
import { flagsOf } from "../model/blocks.ts";
import { openModel, withSnapshot } from "../model/open.ts";
import { adapterJson, type BaseIdentity } from "../model/opened.ts";
import { readInsertions } from "../model/inserted.ts";
import { type InsertionKind, insertionsOf } from "../insertions/kinds.ts";
import { recipeToYaml } from "../options/load.ts";
import { changesBase } from "../train/groups.ts";
import { startHelper } from "../train/helper.ts";
import { openHost } from "../train/host.ts";
import { INITIAL_STATE, type LoopCallbacks, trainLoop } from "../train/loop.ts";
import { restoreTensors, type RunState, toSnapshot } from "../train/snapshot.ts";
import { openTrainingStep } from "../train/step.ts";
import { askBase, compareAnswered } from "./answers.ts";
import { subset } from "./lay-out.ts";
import { openMetrics } from "./metrics.ts";
import { leavePage } from "./page.ts";
import { sourceFacts } from "./prepare.ts";
import { type HeldOut, isStop, keptIn, openHeldOut, type RunAtWork, scoring } from "./work.ts";

export type Outcome =
  | { readonly outcome: "finished"; readonly report: RunReport }
  /** The step that was saved; null where the run was before its first or after its last. */
  | { readonly outcome: "interrupted"; readonly step: number | null };

export async function trainAndReport(work: RunAtWork): Promise<Outcome> {
  const { recipe, runDir, parameters, reportPlan, onEvent } = work;
  const { batchSize, gradientAccumulationSteps, precision } = work.fit;
  await writeFileAtomic(join(runDir, runFiles.recipe), recipeToYaml(recipe));
  const added = insertionsOf(work.opened).filter(([kind]) => !work.base[kind]);
  const changes = added.flatMap(([, { insertion }]) => insertion.changes);
  // Compiled while the base is hashed, where nothing else is scored before.
  const isFirst = changes.length === 0 && !work.base.quantized;
  const [own, first] = await Promise.all([
    identityOf(work.base),
    isFirst ? openHeldOut(work, work.opened) : null,
  ]);
  const baseSha256 = own.sha256!;
  // What was inserted before belongs to the base that it was put on.
  const isPlain = insertionsOf(work.base).length === 0;
  const itself: Provenance = { base: own, hasTrainedBase: false };
  const origin = isPlain ? itself : await provenanceOf(work.base);
  const base = origin.hasTrainedBase === false ? origin.base : own;
  // In this order: what is scored before is the base, a checkpoint comes into the tensors after.
  const original = await scoreOriginal(work, baseSha256);
  const plain = changes.length > 0 ? await openHeldOut(work, work.base) : null;
  const scoredPlain = plain && (await scoreOnce(work, "before", baseSha256, plain));
  await plain?.dispose();
  if (plain) onEvent({ kind: "note", text: `${changes.join(", ")}: not the base from the start` });
  const heldOut = first ?? (await openHeldOut(work, work.opened));
  const inserted = await scoreOnce(work, plain ? "inserted" : "before", baseSha256, heldOut);
  const before = scoredPlain ?? inserted;
  const answers = await askBase(work, plain ? work.base : work.opened, baseSha256);
  const trained = await train(work, base, heldOut, inserted.losses);
  await heldOut.dispose();
  const { outcome, loop } = trained;
  if (outcome === "interrupted")
    return { outcome, step: loop === INITIAL_STATE ? null : loop.step };
  if (outcome === "stopped early")
    onEvent({ kind: "note", text: `stopped early at step ${loop.step}, best at ${loop.bestStep}` });

  const finalStep = recipe.earlyStopping === "off" ? loop.step : loop.bestStep;
  const model = await writeFinal(work, finalStep, origin);
  const how = { batchSize, ...scoring(work, "after", reportPlan) };
  // As `ssa eval` does: from the files, so that the report says what they give.
  const scored = await evaluatePlan(work.engine, model, reportPlan, how);
  const { result, losses, temperatures } = scored;
  const tasks = await compareAnswered(work, model, answers);
  const spec = work.base.quantized?.spec;
  const report: RunReport = {
    before: { ...reportPlan.resultOf(before.losses, baseSha256), ...(spec && { quantized: spec }) },
    ...(spec && { quantized: { ...spec, original } }),
    ...(plain && { inserted: reportPlan.resultOf(inserted.losses, baseSha256) }),
    after: result,
    delta: pairedDelta(before.losses, losses),
    parameters,
    temperatures,
    ...(recipe.tasks && { tasks }),
    recipe,
    sources: sourceFacts(work),
    heldOut: work.heldOut,
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
  await leavePage(work, model, report, scored, before.tokens);
  await writeJson(join(runDir, runFiles.report), report);
  return { outcome: "finished", report };
}

/** What a quantised base was before, where there is room for it; null where there is none, or nothing is quantised. */
async function scoreOriginal(work: RunAtWork, sha256: string) {
  const { quantized, ...base } = work.base;
  if (!quantized || quantized.spec.method) return null;
  if (!work.fit.scoresOriginal) {
    const text = "the base is not scored as it was before it was quantised: it has no room";
    work.onEvent({ kind: "note", text });
    return null;
  }
  const heldOut = await openHeldOut(work, base);
  const { losses } = await scoreOnce(work, "original", sha256, heldOut);
  await heldOut.dispose();
  return work.reportPlan.resultOf(losses, sha256);
}

type Phase = "original" | "before" | "inserted";

/**
 * Losses on the report's windows before training, scored once in a run, those of the base once for several, and kept with
 * what they, and the run, depend on.
 */
async function scoreOnce(work: RunAtWork, when: Phase, base: string, heldOut: HeldOut) {
  const { runDir, sha256, reportPlan, engine } = work;
  const folders = when === "inserted" ? [runDir] : keptIn(work, base);
  const paths = folders.map((folder) => join(folder, runFiles[when]));
  const [stored, shared] = await Promise.all(paths.map((path) => readJsonIfSound(path)));
  const inputs = { base, ...sha256 };
  const known = (stored?.["sha256"] ?? {}) as Readonly<Record<string, unknown>>;
  for (const [name, sha256] of Object.entries(stored ? inputs : {}))
    if (known[name] !== sha256)
      throw new UserError(`${runDir}: the content of ${name} has changed since the run began`, {
        hint: "bring it back to resume, or start a new run",
      });
  const { spec } = (when !== "original" && work.base.quantized) || {};
  const depends = [base, engine.description, reportPlan.conditions];
  const of = JSON.stringify(spec ? [...depends, spec] : depends);
  const found = [stored, shared?.["of"] === of && shared].find((from) => {
    const nats = from && from["nats"];
    return Array.isArray(nats) && nats.length === reportPlan.windows.length;
  }) as { nats: readonly number[]; tokens?: TokenLosses } | undefined;
  const losses = found
    ? reportPlan.windows.map((of, i) => ({ nats: found.nats[i]!, numTokens: numScored([of]) }))
    : await heldOut.score(when, reportPlan);
  checkFinite(losses, reportPlan.windows);
  // Early runs kept nothing of single tokens.
  const tokens = found ? found.tokens : tokenLosses(reportPlan, losses);
  const kept = { nats: losses.map(({ nats }) => nats), tokens };
  const isKept = [found !== undefined && found === stored, shared?.["of"] === of];
  for (const [i, path] of paths.entries()) {
    const what = { ...(i === 0 ? { sha256: inputs } : { of }), ...kept };
    if (!isKept[i]) await writeFileAtomic(path, `${JSON.stringify(what)}\n`);
  }
  return { losses, tokens };
}

/** Writes a step's weights to final/, and opens it. */
async function writeFinal(work: RunAtWork, step: number, { base, hasTrainedBase }: Provenance) {
  const { recipe, runDir } = work;
  const path = join(runDir, runFiles.final);
  const isAdapter = recipe.final === "adapter";
  const trained = await withSnapshot(work.opened, snapshots.snapshotDir(runDir, step));
  await replaceFolder(path, async (folder) => {
    const flags = flagsOf(work.base.quantized?.spec);
    if (isAdapter) await writeAdapter(folder, trained, { ...base, ...flags });
    else {
      // LoRA is merged, so that any program reads it; temperatures stay, of which constant ones could be as well.
      const mergedPath = join(folder, "merged.safetensors");
      const merged = await folded(trained, mergedPath, ["lora"]);
      const isChanged = merged !== trained || changesBase(recipe) || hasTrainedBase;
      await writeModelFolder(folder, merged, { base, hasTrainedBase: isChanged });
      await rm(mergedPath, { force: true });
    }
    if (work.chatTemplate)
      await writeFileAtomic(join(folder, modelFiles.chatTemplate), work.chatTemplate);
  });
  if (isAdapter) return { ...work.base, ...(await readInsertions(path, trained.model)) };
  const model = await openModel(path);
  // What is trained on a quantised base is scored on it, although the folder has the weights as they were.
  return work.base.quantized ? { ...trained, checkpoint: model.checkpoint } : model;
}

/** Trains the prepared tensors in place; adapters say that they belong to `base`. */
async function train(work: RunAtWork, base: BaseIdentity, heldOut: HeldOut, inserted: Losses) {
  const { recipe, runDir, opened, tensors, shapes, onEvent, signal } = work;
  const { batchSize, gradientAccumulationSteps, precision, recompute } = work.fit;
  const start = await startOrResume(work);
  const names = tensors.map(({ name }) => name);
  const shape = { ...shapes.training, batchSize };
  const options = { precision, recompute };
  const step = await openTrainingStep(work.engine, opened, shape, names, options);
  const batches = mixedBatches(work.sources, start.cursor);
  const keep = await openMetrics(work, start.loop === INITIAL_STATE ? -1 : start.loop.step);
  // The cursor is that of the last whole step: the next one may have drawn its batches and failed.
  let { numTokens, trainSeconds, cursor } = start;
  const elapsedSeconds = () => start.elapsedSeconds + (performance.now() - work.startedAt) / 1000;
  const callbacks: LoopCallbacks = {
    nextBatch: () => batches.next(batchSize),
    shouldStop: (error = signal.reason) => isStop(error, signal),
    onStep: async ({ seconds, ...step }) => {
      numTokens += step.numTokens;
      trainSeconds += seconds;
      cursor = batches.cursor();
      const record = { ...step, tokensPerSecond: step.numTokens / seconds };
      onEvent({ kind: "step", steps: recipe.steps, ...record });
      await keep("step", record);
    },
    evaluate: async (at) => {
      const known = at === 0 ? subset(inserted, work.reportPlan, work.evalPlan) : undefined;
      const score = async () => known ?? heldOut.score("evaluation", work.evalPlan);
      const losses = await score().catch((error: unknown) => {
        if (!isStop(error, signal)) throw error;
      });
      if (!losses) return null;
      const { lossNats, perplexity } = estimate(losses);
      onEvent({ kind: "evaluated", step: at, lossNats });
      await keep("evaluation", { step: at, lossNats, perplexity });
      return lossNats;
    },
    save: async (loop) => {
      const counters = { numTokens, trainSeconds, elapsedSeconds: elapsedSeconds() };
      const snapshot = toSnapshot(tensors, { loop, cursor, ...counters });
      const configOf = (kind: InsertionKind) =>
        recipe.tune.includes(kind) ? adapterJson(kind, opened, base) : undefined;
      const configs = { adapterConfig: configOf("temperatures"), loraConfig: configOf("lora") };
      const dir = await snapshots.saveSnapshot(runDir, snapshot, configs);
      const best = recipe.earlyStopping === "off" ? [] : [loop.bestStep];
      await snapshots.pruneSnapshots(runDir, recipe.keepLast, best);
      onEvent({ kind: "saved", step: loop.step, dir });
    },
  };
  const how = { ...recipe, gradientAccumulationSteps };
  const threads = recipe.threads === "auto" ? availableParallelism() : recipe.threads;
  const host = openHost(tensors, { threads, start: startHelper });
  const training = trainLoop(step, tensors, host, how, callbacks, start.loop);
  const { outcome, state: loop } = await training.finally(host.close);
  await step.dispose();
  return { outcome, loop, tokensPerSecond: numTokens / trainSeconds, elapsedSeconds };
}

/** The run's state: of its last checkpoint, which is put into the tensors, or at step 0. */
async function startOrResume(work: RunAtWork): Promise<RunState> {
  const { recipe, runDir, isResumed, onEvent } = work;
  const note = (text: string) => onEvent({ kind: "note", text });
  const found = isResumed ? await snapshots.latestSnapshot(runDir) : undefined;
  for (const { dir, reason } of found?.skipped ?? [])
    note(`${dir} is damaged (${reason}); the checkpoint before it is used`);
  if (isResumed && !found) note(`no checkpoint in ${runDir} yet: starting at step 0`);
  await snapshots.truncateMetrics(runDir, found?.step ?? -1);
  if (!found) {
    const cursor = { seed: recipe.seed, epoch: 0, index: 0 };
    return { loop: INITIAL_STATE, cursor, numTokens: 0, trainSeconds: 0, elapsedSeconds: 0 };
  }
  await restoreTensors(found.dir, work.tensors);
  note(`resuming at step ${found.step} from ${found.dir}`);
  return found.state as RunState;
}
