// The library, in the order in which it is used. Nothing here prints, exits or reads the environment: where things are,
// and who is told, are options.

/** One call each: from names of a model and of data to a report, or a result. */
export {
  fineTune,
  type FineTuneOptions,
  type OpenRun,
  startRun,
  withRun,
} from "./run/fine-tune.ts";
export {
  evaluate,
  type EvaluateModelOptions,
  planEvaluation,
  type TaskName,
} from "./run/evaluate.ts";
export { generate } from "./generate/generate.ts";
export { convert } from "./export/convert.ts";
export { inspectModel, type Inspection } from "./run/inspect.ts";

/** What comes back: perplexities with their uncertainty, and events on the way. */
export type { LambadaResult, PerplexityResult, RunReport, TaskResult } from "./evaluate/results.ts";
export type { RunEvent } from "./run/finetune.ts";

/** Mistakes that the caller can mend; anything else that is thrown is a mistake of this package. */
export { UserError } from "./core/errors.ts";

/** Where things are: the hub and its cache, as `HF_HOME` and its like say where the environment is handed in. */
export { type HubSettings, hubSettings } from "./hub/environment.ts";
export { opening, type PlaceOptions, type Places, placesOf } from "./model/places.ts";

/** Recipes: every option of a run, from a file, variables, flags or values, checked together. */
export { loadRecipe, type RecipeSources, recipeToYaml } from "./options/load.ts";
export { type Recipe, recipeOptions } from "./options/schema.ts";

/** Models: a base, a run or an adapter, opened by any name with `opening(placesOf({}))`. */
export { countParameters, type OpenedModel, openModel, type OpenOptions } from "./model/open.ts";
export type { TemperatureSpec } from "./insertions/spec.ts";

/** Data: files by split, read through a model's own tokenizer. */
export { findData, type NamedData, reading } from "./model/places.ts";
export { type DataSplit, selectSplit } from "./data/readers/files.ts";
export { type ModelCorpus, readCorpus } from "./model/read-corpus.ts";

/** Devices: what this machine has, and an engine on one of them, or on the fastest. */
export { type DeviceReport, type Engine, openEngine, surveyDevices } from "./engines/index.ts";

/** The pieces of a run: its graph, what it trains, what it scores, and how that compares with a result of before. */
export { buildForward, logitsOf } from "./model/graph.ts";
export { type Prepared, prepareRun } from "./run/prepare.ts";
export { finetune, type FinetuneResult } from "./run/finetune.ts";
export { type ConventionName, conventions } from "./data/conventions.ts";
export { tasks } from "./evaluate/tasks/index.ts";
export { planWindows } from "./evaluate/tasks/perplexity.ts";
export { evaluate as scorePlan } from "./evaluate/evaluation.ts";
export { compareWithBaseline, readBaseline } from "./evaluate/regression.ts";
