// The library, in the order in which it is used. It prints nothing, never exits and reads no environment: where things
// are, and who is told, are options.

/** One call each, from the names of a model and of data to what comes of them. */
export { fineTune, type FineTuneOptions } from "./run/fine-tune.ts";
export { evaluate, type EvaluateModelOptions, evaluateTasks } from "./run/evaluate.ts";
export { compare, type CompareOptions, compareRuns } from "./run/compare.ts";
export { generate, openGenerator } from "./generate/generate.ts";
export { convert } from "./export/convert.ts";
export { inspectModel, type Inspection, inspectText, type TextInspection } from "./run/inspect.ts";

/** What comes back: perplexities with their uncertainty, events on the way, and mistakes that the caller can mend. */
export type { RunReport } from "./evaluate/results.ts";
export type { PerplexityResult } from "./evaluate/window-plan.ts";
export type { LambadaResult } from "./evaluate/tasks/lambada.ts";
export type { ChoiceResult } from "./evaluate/tasks/choices.ts";
export type { RunEvent } from "./run/work.ts";
export { UserError } from "./core/errors.ts";

/** Where things are: the hub and its cache, as HF_HOME and its like say where the environment is handed in. */
export { type HubSettings, hubSettings } from "./hub/environment.ts";
export { findData, opening, type Places, placesOf, readCorpus, reading } from "./model/places.ts";

/** Recipes: every option of a run, from a file, variables, flags or values, checked together. */
export { loadRecipe, type RecipeSources, recipeToYaml } from "./options/load.ts";
export { type Comparison, loadComparison } from "./options/comparison.ts";
export { type Recipe, recipeOptions } from "./options/schema.ts";

/** Models, `openModel(name, opening(placesOf({})))`; data, read through a model's own tokenizer; devices. */
export { openModel } from "./model/open.ts";
export { countParameters, type OpenedModel } from "./model/opened.ts";
export type { TemperatureSpec } from "./insertions/parts.ts";
export { selectSplit } from "./data/readers/files.ts";
export { type DeviceReport, type Engine, openEngine, surveyDevices } from "./engines/index.ts";

/** The pieces of a run: its graph, what it trains and scores, and how that compares with what was before. */
export { buildForward, logitsOf } from "./model/graph.ts";
export { prepareRun } from "./run/prepare.ts";
export { trainRun } from "./run/fine-tune.ts";
export { type ConventionName, conventions } from "./data/windows.ts";
export { tasks } from "./evaluate/tasks/index.ts";
export { planWindows } from "./evaluate/window-plan.ts";
export { evaluatePlan } from "./evaluate/evaluation.ts";
export { compareAnswers, compareWithBaseline, readBaseline } from "./evaluate/results.ts";
