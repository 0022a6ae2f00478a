// A run from the names in its recipe to its report: what `ssa finetune` does, without a word.

import { freemem } from "node:os";
import { basename } from "node:path";
import { selectSplit } from "../data/readers/files.ts";
import type { RunReport } from "../evaluate/results.ts";
import { claimRunFolder } from "../files/run-folder.ts";
import { checkNames, findData, opening, placesOf, reading, withEngine } from "../model/places.ts";
import type { Places } from "../model/places.ts";
import { loadRecipe } from "../options/load.ts";
import type { Recipe } from "../options/schema.ts";
import { finetune, type FinetuneOptions, type FinetuneResult, type RunEvent } from "./finetune.ts";
import { type Fit, fitRun } from "./fit.ts";
import { refuseUsed } from "./folder.ts";
import { openBase, prepareRun, type RunData } from "./prepare.ts";

export const CHECKPOINTS = "checkpoints";

export interface FineTuneOptions extends Partial<Omit<Recipe, "base" | "data">>, Partial<Places> {
  readonly base: string;
  readonly data: string;
  /** After each optimizer step. */
  readonly onStep?: (step: Extract<RunEvent, { kind: "step" }>) => void;
  readonly onEvent?: (event: RunEvent) => void;
}

/**
 * Fine-tunes a model and gives the report; every key of a recipe is an option. A signal that aborts stops it after the
 * present step, saved: the promise rejects with the signal's reason, and `ssa finetune --resume` continues the run.
 */
export async function fineTune(options: FineTuneOptions): Promise<RunReport> {
  const { onStep, onEvent, signal = new AbortController().signal, ...given } = options;
  const places = placesOf({ ...given, signal });
  const values = Object.entries(given).filter(([key]) => !Object.hasOwn(places, key));
  const recipe = loadRecipe({ values: Object.fromEntries(values) });
  if (recipe.out) await refuseUsed(recipe.out);
  const result = await withRun(recipe, places, (run) =>
    startRun(run, {
      isResumed: false,
      signal,
      onEvent: (event) => {
        if (event.kind === "step") onStep?.(event);
        onEvent?.(event);
      },
    }),
  );
  if (result.outcome === "finished") return result.report;
  throw signal.reason;
}

/** A run whose model and data are read, and its engine. */
export type OpenRun = Pick<FinetuneOptions, "recipe" | "prepared" | "engine"> & {
  readonly fit: Fit;
};

/** Opens what a recipe names for `work`, with which the engine ends. */
export async function withRun<T>(
  recipe: Recipe,
  places: Places,
  work: (run: OpenRun) => Promise<T>,
): Promise<T> {
  // A mistyped name is told before another one is fetched.
  await checkNames(recipe.base, recipe.data, recipe.evalData);
  const base = await openBase(recipe, opening(places));
  const data = await findRunData(recipe, places);
  const prepared = await prepareRun(recipe, base, data, reading(places, recipe.threads)).finally(
    () => places.onProgress?.(undefined),
  );
  return withEngine(recipe, places, (engine) => {
    const programBytes = process.memoryUsage.rss();
    const fit = fitRun(recipe, prepared, { programBytes, freeBytes: freemem(), engine });
    return work({ recipe, prepared, engine, fit });
  });
}

interface StartOptions extends Pick<FinetuneOptions, "isResumed" | "onEvent" | "signal"> {
  /** The recipe's by default, or a new one under checkpoints/. */
  readonly runDir?: string | undefined;
  /** Told where the run is, before its first step. */
  readonly onStart?: (runDir: string) => void;
}

/** Trains, or continues to train, an open run. */
export async function startRun(
  { recipe, ...run }: OpenRun,
  { onStart, ...options }: StartOptions,
): Promise<FinetuneResult & { readonly runDir: string }> {
  const given = options.runDir ?? recipe.out;
  const runDir = given ?? (await claimRunFolder(CHECKPOINTS, runStem(recipe)));
  onStart?.(runDir);
  const result = await finetune({
    ...run,
    ...options,
    recipe: recipe.out ? recipe : { ...recipe, out: runDir },
    runDir,
    now: () => performance.now(),
    peakRssBytes: () => process.resourceUsage().maxRSS * 1024,
  });
  return { ...result, runDir };
}

/** `gpt2-wikitext` of base and data. */
function runStem({ base, data }: Recipe): string {
  const stem = (name: string) =>
    basename(name.replace(/[@:*?].*$/, "").replace(/\/+$/, "")).replace(/\.\w+$/, "") || "run";
  return `${stem(base)}-${stem(data)}`;
}

async function findRunData(recipe: Recipe, places: Places): Promise<RunData> {
  const data = await findData(recipe.data, places, ["train", "validation"]);
  const held = recipe.evalData ? await findData(recipe.evalData, places) : undefined;
  const holdOut = held ? 0 : recipe.holdOut;
  const evaluation = held
    ? selectSplit(held, held.split ?? "evaluation")
    : selectSplit(data, "validation", holdOut);
  return {
    train: selectSplit(data, data.split ?? "train", holdOut),
    evaluation,
    evaluationRemake: (held ?? data).remake,
  };
}
