// The public API: what the commands are made of. Nothing here prints, exits or reads the environment.

/** Opening models: base, augmented and adapter folders. */
export { type OpenedModel, countParameters, openModel } from "./model/open.ts";
export { buildForward, logitsOf } from "./model/graph.ts";
export { type TemperatureSpec } from "./insertions/spec.ts";

/** Data: splits, tokens, and the named conventions of perplexity. */
export { type ConventionName, conventions } from "./data/conventions.ts";
export { findDataFiles, selectSplit } from "./data/readers/files.ts";
export { EMBEDDED_DATA, embeddedData } from "./data/readers/embedded.ts";
export { hubSettings } from "./hub/environment.ts";
export { resolveDataset } from "./hub/dataset.ts";
export { resolveModel } from "./hub/model.ts";

/** Devices: `auto` or a name. */
export { type DeviceReport, type Engine, openEngine, surveyDevices } from "./engines/index.ts";

/** Recipes, runs and their reports. */
export { loadRecipe, recipeToYaml } from "./options/load.ts";
export { type Recipe, recipeOptions } from "./options/schema.ts";
export { compareWithBaseline, readBaseline } from "./evaluate/regression.ts";
export { type LambadaResult, type PerplexityResult, type RunReport } from "./evaluate/results.ts";
export { readCorpus } from "./model/read-corpus.ts";
export { evaluate } from "./evaluate/evaluation.ts";
export { tasks } from "./evaluate/tasks/index.ts";
export { planWindows } from "./evaluate/tasks/perplexity.ts";
export { finetune, type FinetuneResult, type RunEvent } from "./run/finetune.ts";
export { inspectModel } from "./run/inspect.ts";
export { prepareRun } from "./run/prepare.ts";

/** Exports: Hugging Face folders, adapters, ONNX. */
export { convert } from "./export/convert.ts";
export { generate } from "./generate/generate.ts";

/** Mistakes that a user can mend. */
export { UserError } from "./core/errors.ts";
