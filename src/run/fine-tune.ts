// A run from the names in its recipe to its report: what `ssa finetune` does, without a word.

import { existsSync } from "node:fs";
import { readdir, rmdir, stat } from "node:fs/promises";
import { basename, join } from "node:path";
import { UserError } from "../core/errors.ts";
import { DeviceError, type Engine, takingTurns } from "../engines/index.ts";
import { readReport, type RunReport } from "../evaluate/results.ts";
import { failing, makeFolder, temporaryOwner } from "../files/atomic.ts";
import { appendLine, readJsonIfSound, writeJson } from "../files/json.ts";
import { lockName, lockRun } from "../files/lock.ts";
import { runFiles } from "../files/names.ts";
import * as folders from "../files/run-folder.ts";
import { modelSha256 } from "../files/safetensors.ts";
import { type Places, placesOf } from "../model/places.ts";
import { loadRecipe, readRecipe, type RecipeSources, resumedRecipe } from "../options/load.ts";
import { type Recipe, type RecipeSource, sequencesOf, sourcesOf } from "../options/schema.ts";
import { type Chosen, divisorsOf, type Fit, type OnEngine, onEngineOf } from "./fit.ts";
import { choosePrecision } from "./precision.ts";
import { type Prepared, prepareRun } from "./prepare.ts";
import { type Outcome, trainAndReport } from "./training.ts";
import { isStop, type Listener, type RunAtWork, type RunEvent } from "./work.ts";

export const CHECKPOINTS = "checkpoints";

export interface FineTuneOptions extends Partial<Omit<Recipe, "base" | "data">>, Partial<Places> {
  readonly base: string;
  readonly data: string | readonly (string | RecipeSource)[];
  /** Continues the run at `out`, or the newest under checkpoints/. */
  readonly resume?: boolean;
  readonly onStep?: (step: Extract<RunEvent, { kind: "step" }>) => void;
  readonly onEvent?: (event: RunEvent) => void;
}

/**
 * Fine-tunes a model and gives the report; every key of a recipe is an option. A signal that aborts stops it after the
 * present step, saved: the promise rejects with the signal's reason, and `resume` continues the run.
 */
export async function fineTune(options: FineTuneOptions): Promise<RunReport> {
  const { onStep, onEvent, resume: isResumed = false, ...others } = options;
  const { signal = new AbortController().signal, ...given } = others;
  const places = placesOf({ ...given, signal });
  const values = Object.entries(given).filter(([key]) => !Object.hasOwn(places, key));
  const recipe = await resolveRun({ values: Object.fromEntries(values) }, given.out, isResumed);
  const result = await trainRun(await prepareRun(recipe, places), {
    isResumed,
    signal,
    onEvent: (event) => {
      if (event.kind === "step") onStep?.(event);
      onEvent?.(event);
    },
  });
  if (result.outcome === "finished") return result.report;
  throw signal.reason;
}

/** The recipe of a new run, or of one that is resumed as it was, with its folder where it has one already. */
export async function resolveRun(
  sources: RecipeSources,
  given: string | null | undefined,
  isResumed: boolean,
): Promise<Recipe> {
  if (isResumed) {
    const out = given ?? (await folders.newestRun(CHECKPOINTS));
    if (out === undefined)
      throw new UserError(`there is no run under ${CHECKPOINTS}/ to resume`, {
        hint: "name its folder: --resume --out DIR",
      });
    const path = join(out, runFiles.recipe);
    const recipe = existsSync(path)
      ? resumedRecipe(await readRecipe(path), sources)
      : loadRecipe(sources);
    return { ...recipe, out };
  }
  const recipe = loadRecipe(sources);
  if (recipe.out) await refuseUsed(recipe.out);
  return recipe;
}

interface TrainOptions extends Listener, Pick<RunAtWork, "isResumed" | "sharedBase"> {
  /** Told where the run is and what computes it, before its first step. */
  readonly onStart?: (runDir: string, device: string) => void;
  /** The recipe's device by default. */
  readonly onEngine?: OnEngine;
}

/** Trains, or continues to train, a prepared run in its folder, or a new one under checkpoints/, locked meanwhile. */
export async function trainRun(
  prepared: Prepared,
  { onStart, onEngine = onEngineOf(prepared), ...options }: TrainOptions,
): Promise<Outcome & { readonly runDir: string }> {
  const { recipe } = prepared;
  const { isResumed, signal } = options;
  const runDir = recipe.out ?? (await folders.claimRunFolder(CHECKPOINTS, runStem(recipe)));
  // What cannot be a folder is told before anything is computed.
  for (const folder of [recipe.tensorboard, runDir])
    if (typeof folder === "string") await makeFolder(folder).catch(failing(folder));
  // Before an engine starts: who finds the folder in use has nothing that must be ended.
  const lock = await lockRun(runDir);
  try {
    // Again, now that nobody else can: another process may have been here since.
    if (!isResumed) await refuseUsed(runDir);
    await folders.removeLeftovers(runDir);
    const here = { ...prepared, ...options, recipe: { ...recipe, out: runDir }, runDir };
    const report = isResumed && (await finishedReport(here.recipe));
    if (report) return { outcome: "finished", report, runDir };
    // Begun while the run is planned, which asks for it before its first step; what fails is told there.
    modelSha256(prepared.base.checkpoint).catch(() => undefined);
    return { ...(await trainOn(onEngine, here, onStart)), runDir };
  } catch (error) {
    if (isStop(error, signal)) return { outcome: "interrupted", step: null, runDir };
    throw error;
  } finally {
    await lock.release();
    // A run that was refused before it began leaves nothing.
    await rmdir(runDir).catch(() => undefined);
  }
}

type NotStarted = Omit<RunAtWork, "engine" | "fit" | "startedAt">;
type Begun = Readonly<{ device: string; fit: Fit }>;

/**
 * Trains on an engine. Where its device fails, what was trained is saved; a micro batch that `auto` chose and that the
 * memory does not hold is halved, and the run resumes itself.
 */
async function trainOn(onEngine: OnEngine, run: NotStarted, onStart: TrainOptions["onStart"]) {
  const { recipe, runDir, onEvent } = run;
  const path = join(runDir, runFiles.chosen);
  const note = (text: string) => onEvent({ kind: "note", text });
  let tell = onStart;
  let chosen: Chosen = (run.isResumed && (await readJsonIfSound(path))) || {};
  for (let { isResumed } = run; ; isResumed = true) {
    let begun: Begun | undefined;
    const choose = async (engine: Engine): Promise<Chosen> => {
      if (recipe.precision !== "auto" || chosen.precision) return chosen;
      const { precision, why } = await choosePrecision(run, engine);
      note(`precision: ${precision}; ${why}`);
      return { ...chosen, precision };
    };
    const work = async (started: Engine, fit: Fit) => {
      const { batchSize, precision, takesTurns } = fit;
      begun = { device: started.description, fit };
      chosen = { batchSize, precision };
      if (recipe.batchSize === "auto" || recipe.precision === "auto") await writeJson(path, chosen);
      const isUnknown = recipe.deviceMemory === "auto" && started.deviceFree === undefined;
      if (recipe.batchSize === "auto" && fit.deviceBytes > 0 && isUnknown)
        note("batch size 1: nothing says what the device's memory is but --device-memory");
      tell?.(runDir, started.description);
      tell = undefined;
      const engine = takesTurns ? takingTurns(started) : started;
      return trainAndReport({ ...run, isResumed, engine, fit, startedAt: performance.now() });
    };
    try {
      return await onEngine(work, choose);
    } catch (error) {
      if (!(error instanceof DeviceError) || !begun) throw error;
      const { batchSize } = begun.fit;
      const isHalved = error.isOutOfMemory && recipe.batchSize === "auto" && batchSize > 1;
      if (!isHalved) throw await deviceFailure(error, begun, run);
      chosen = { ...chosen, batchSize: Math.floor(batchSize / 2) };
      const what = `too little memory for micro batches of ${batchSize}`;
      note(`${begun.device} has ${what} (${error.message}); going on with fewer sequences in each`);
      await appendLine(join(runDir, runFiles.metrics), { kind: "out of memory", batchSize });
    }
  }
}

/** What a failed device means to a run: what is saved, and how it goes on. */
async function deviceFailure(error: DeviceError, { device, fit }: Begun, run: NotStarted) {
  const { recipe, runDir } = run;
  const saved = await folders.latestSnapshot(runDir).catch(() => undefined);
  const state = saved ? `; all up to step ${saved.step} is saved` : "";
  const resume = `--resume --out ${runDir}`;
  const failed = (what: string, hint?: string) =>
    new UserError(`${device} ${what}: ${error.message}${state}`, { hint, exitCode: 1 });
  if (!error.isOutOfMemory)
    return failed("failed", saved && `once it works again, ${resume} goes on from there`);
  const sequences = sequencesOf(recipe);
  const [fewer] = divisorsOf(sequences, fit.batchSize / 2);
  const flags = `--batch-size ${fewer} --gradient-accumulation-steps ${sequences / fewer!}`;
  const smaller = `the same steps in less: ${saved ? `${resume} ` : ""}${flags}`;
  const other = "use --recompute, a smaller --context or another device";
  const what = `has too little memory for micro batches of ${fit.batchSize}`;
  return failed(what, fewer === undefined ? other : smaller);
}

async function refuseUsed(runDir: string): Promise<void> {
  if (!existsSync(runDir)) return;
  if (!(await stat(runDir)).isDirectory())
    throw new UserError(`${runDir} is a file, a folder is needed for the run`);
  const isOurs = (name: string) => name.startsWith(lockName) || temporaryOwner(name) !== undefined;
  if (!(await readdir(runDir)).every(isOurs))
    throw new UserError(`${runDir} exists and is not empty`, {
      hint: "continue it with --resume, or name another --out",
    });
}

/** The report of a run that has done all its steps; undefined for any other, and where the report is damaged. */
export async function finishedReport({ out, steps }: Recipe): Promise<RunReport | undefined> {
  if (!out || !existsSync(join(out, runFiles.final))) return undefined;
  const report = await readReport(out);
  return report?.recipe.steps === steps ? report : undefined;
}

/** `gpt2-wikitext` of base and data. */
function runStem({ base, ...recipe }: Recipe): string {
  const stem = (name: string) =>
    basename(name.replace(/[@:*?].*$/, "").replace(/\/+$/, "")).replace(/\.\w+$/, "") || "run";
  return `${stem(base)}-${stem(sourcesOf(recipe)[0]!.path)}`;
}
