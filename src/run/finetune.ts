// A whole fine-tuning run: before, training with checkpoints, after, report and final model. Killed at any moment, it
// continues from its last checkpoint to the same result.

import { existsSync } from "node:fs";
import { mkdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import { trainingBatches } from "../data/batches.ts";
import type { Window } from "../data/windows.ts";
import type { Engine } from "../engines/index.ts";
import { estimate, pairedDelta } from "../evaluate/perplexity.ts";
import { openScorer, type WindowLoss } from "../evaluate/scorer.ts";
import { writeFileAtomic } from "../formats/atomic.ts";
import {
  appendLine,
  latestSnapshot,
  lockRun,
  pruneSnapshots,
  removeLeftovers,
  runFiles,
  saveSnapshot,
  truncateMetrics,
} from "../formats/run-folder.ts";
import { modelSha256 } from "../formats/safetensors.ts";
import type { Recipe } from "../recipe/schema.ts";
import { recipeToYaml } from "../recipe/load.ts";
import type { RunReport } from "../report/report.ts";
import { type LoopState, type StepMetrics, trainLoop } from "../train/loop.ts";
import { openTrainingStep } from "../train/step.ts";
import { type WindowPlan, resultOf } from "./evaluate.ts";
import { finishRun } from "./finish.ts";
import type { Prepared } from "./prepare.ts";
import { adapterConfig, type RunState, restoreTensors, toSnapshot } from "./snapshot.ts";

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
    } & StepMetrics)
  | { readonly kind: "evaluated"; readonly step: number; readonly lossNats: number }
  | { readonly kind: "saved"; readonly step: number; readonly dir: string };

export interface FinetuneOptions {
  readonly recipe: Recipe;
  readonly runDir: string;
  readonly prepared: Prepared;
  readonly engine: Engine;
  /** What the base is called, for adapters and cards. */
  readonly base: { readonly name: string; readonly revision?: string | undefined };
  readonly isResumed: boolean;
  readonly onEvent: (event: RunEvent) => void;
  /** Asked between steps. */
  readonly shouldStop: () => boolean;
  /** Milliseconds. */
  readonly now: () => number;
  readonly peakRssBytes: () => number;
}

export type FinetuneResult =
  | { readonly outcome: "finished"; readonly report: RunReport }
  | { readonly outcome: "interrupted"; readonly step: number };

/** The base's losses on the report's windows, scored once. */
const BEFORE = "before.json";

/** Trains, or continues to train, the prepared run in `runDir`, which is locked meanwhile. */
export async function finetune(options: FinetuneOptions): Promise<FinetuneResult> {
  const { runDir, isResumed } = options;
  await mkdir(runDir, { recursive: true });
  const lock = await lockRun(runDir);
  try {
    await removeLeftovers(runDir);
    const reportPath = join(runDir, runFiles.report);
    if (isResumed && existsSync(reportPath) && existsSync(join(runDir, runFiles.final))) {
      const report = JSON.parse(await readFile(reportPath, "utf8")) as RunReport;
      return { outcome: "finished", report };
    }
    return await trainAndReport(options);
  } finally {
    await lock.release();
  }
}

async function trainAndReport(options: FinetuneOptions): Promise<FinetuneResult> {
  const { recipe, runDir, prepared, engine, onEvent, now } = options;
  const { augmented, tensors, context, evaluation, reportPlan, evalPlan } = prepared;
  const started = now();
  const baseSha256 =
    augmented.checkpoint.files.length > 0 ? await modelSha256(augmented.checkpoint) : "random";
  const trainable = new Set(tensors.map(({ name }) => name));
  const feeds = Object.fromEntries(tensors.map(({ name, values }) => [name, values]));
  const { batchSize } = recipe;
  const scorer = await openScorer(engine, augmented, { batchSize, context, trainable });
  const score = (phase: string, plan: WindowPlan) =>
    scorer.score(evaluation.texts, plan.windows, {
      feeds,
      onBatch: ({ windows }) =>
        onEvent({ kind: "scored", phase, windows, of: plan.windows.length }),
    });
  // In this order: what is scored before is the base, a checkpoint comes into the tensors after.
  const before = await scoreOnce(join(runDir, BEFORE), reportPlan, () =>
    score("before", reportPlan),
  );
  const state = await startOrResume(options);

  const step = await openTrainingStep(engine, augmented, { batchSize, context }, [...trainable]);
  const batches = trainingBatches(prepared.stream, { context, cursor: state.cursor });
  const metricsPath = join(runDir, runFiles.metrics);
  const base = {
    base_model_name_or_path: options.base.name,
    ...(options.base.revision && { base_revision: options.base.revision }),
    base_sha256: baseSha256,
  };
  let lastDir: string | undefined;
  let [numTokens, trainSeconds] = [state.numTokens, state.trainSeconds];
  const stateOf = (loop: LoopState): RunState => {
    return { loop, cursor: batches.cursor(), numTokens, trainSeconds };
  };
  let stepStarted = 0;
  const { outcome, state: loop } = await trainLoop(
    step,
    tensors,
    { ...recipe, patience: recipe.earlyStopping === "off" ? null : recipe.earlyStopping.patience },
    {
      nextBatch: () => batches.next(batchSize),
      shouldStop: () => {
        stepStarted = now();
        return options.shouldStop();
      },
      onStep: async (metrics) => {
        numTokens += metrics.numTokens;
        const seconds = (now() - stepStarted) / 1000;
        trainSeconds += seconds;
        const tokensPerSecond = metrics.numTokens / seconds;
        onEvent({ kind: "step", steps: recipe.steps, tokensPerSecond, ...metrics });
        await appendLine(metricsPath, { kind: "step", ...metrics, tokensPerSecond });
      },
      evaluate: async (at) => {
        const losses = at === 0 ? subset(before, reportPlan, evalPlan) : undefined;
        const { lossNats } = estimate(losses ?? (await score("evaluation", evalPlan)));
        onEvent({ kind: "evaluated", step: at, lossNats });
        const perplexity = Math.exp(lossNats);
        await appendLine(metricsPath, { kind: "evaluation", step: at, lossNats, perplexity });
        return lossNats;
      },
      save: async (current) => {
        const snapshot = toSnapshot(tensors, stateOf(current));
        const config = { adapterConfig: adapterConfig(augmented, base) };
        lastDir = await saveSnapshot(runDir, snapshot, config);
        const best = recipe.earlyStopping === "off" ? [] : [current.bestStep];
        await pruneSnapshots(runDir, recipe.keepLast, best);
        onEvent({ kind: "saved", step: current.step, dir: lastDir });
      },
      lastCheckpoint: () => lastDir,
    },
    state.loop,
  );
  await step.dispose();
  await scorer.dispose();
  if (outcome === "interrupted") return { outcome, step: loop.step };
  if (outcome === "stopped early")
    onEvent({ kind: "note", text: `stopped early at step ${loop.step}, best at ${loop.bestStep}` });

  const { after, finalStep, temperatures } = await finishRun(options, loop, base);
  const report: RunReport = {
    before: resultOf(before, reportPlan, evaluation, baseSha256),
    after: after.result,
    delta: pairedDelta(before, after.losses),
    parameters: {
      base: prepared.parameters.base,
      added: prepared.parameters.added,
      share: prepared.parameters.added / prepared.parameters.base,
    },
    temperatures,
    recipe,
    device: engine.description,
    steps: loop.step,
    finalStep,
    tokensPerSecond: numTokens / trainSeconds,
    peakRssBytes: options.peakRssBytes(),
    elapsedSeconds: (now() - started) / 1000,
  };
  await writeFileAtomic(join(runDir, runFiles.report), `${JSON.stringify(report, null, 2)}\n`);
  return { outcome: "finished", report };
}

/** The run's state: of its last checkpoint, which is put into the tensors, or at step 0. */
async function startOrResume({
  recipe,
  runDir,
  prepared,
  isResumed,
  onEvent,
}: FinetuneOptions): Promise<RunState> {
  const note = (text: string) => onEvent({ kind: "note", text });
  const found = isResumed ? await latestSnapshot(runDir) : undefined;
  for (const { dir, reason } of found?.skipped ?? [])
    note(`${dir} is damaged (${reason}); the checkpoint before it is used`);
  if (isResumed && !found) note(`no checkpoint in ${runDir} yet: starting at step 0`);
  if (!found) {
    await writeFileAtomic(join(runDir, runFiles.recipe), recipeToYaml(recipe));
    await truncateMetrics(runDir, -1);
    const loop = { step: 0, bestLossNats: null, bestStep: 0, evaluationsSinceBest: 0 };
    const cursor = { seed: recipe.seed, epoch: 0, index: 0 };
    return { loop, cursor, numTokens: 0, trainSeconds: 0 };
  }
  await restoreTensors(found.dir, prepared.tensors, { withOptimizer: true });
  await truncateMetrics(runDir, found.step);
  note(`resuming at step ${found.step} from ${found.dir}`);
  return found.state as RunState;
}

/** Losses that are scored once in a run and kept in a file. */
async function scoreOnce(
  path: string,
  { windows }: WindowPlan,
  score: () => Promise<WindowLoss[]>,
): Promise<WindowLoss[]> {
  if (existsSync(path)) {
    const { nats } = JSON.parse(await readFile(path, "utf8")) as { nats: readonly number[] };
    if (nats.length === windows.length)
      return windows.map(({ length, scoreFrom }, i) => {
        return { nats: nats[i]!, numTokens: length - scoreFrom };
      });
  }
  const losses = await score();
  await writeFileAtomic(path, `${JSON.stringify({ nats: losses.map(({ nats }) => nats) })}\n`);
  return losses;
}

/** The losses of one plan's windows taken from another's, where all are among them. */
function subset(
  losses: readonly WindowLoss[],
  from: WindowPlan,
  to: WindowPlan,
): readonly WindowLoss[] | undefined {
  const key = ({ text, start }: Window) => `${text} ${start}`;
  const known = new Map(from.windows.map((window, i) => [key(window), losses[i]!]));
  const found = to.windows.map((window) => known.get(key(window)));
  return found.every((loss) => loss !== undefined) ? found : undefined;
}
