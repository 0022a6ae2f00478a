// The public API: what the commands are made of. Nothing here prints, exits or reads the environment.

/** Opening models: base, augmented and adapter folders. */
export { type AugmentedModel, countParameters, openModel } from "./augmented/open.ts";
export { buildForward, logitsOf } from "./augmented/graph.ts";
export { type TemperatureSpec } from "./ssa/spec.ts";

/** Data: splits, tokens, and the named conventions of perplexity. */
export { conventionByName } from "./data/conventions.ts";
export { findDataFiles, selectSplit } from "./data/data-files.ts";
export { EMBEDDED_DATA, embeddedData } from "./data/embedded.ts";
export { hubSettings } from "./hub/environment.ts";
export { resolveDataset } from "./hub/dataset.ts";
export { resolveModel } from "./hub/model.ts";

/** Devices: `auto` or a name. */
export { type DeviceReport, type Engine, openEngine, surveyDevices } from "./engines/index.ts";

/** Recipes, runs and their reports. */
export { loadRecipe, recipeToYaml } from "./recipe/load.ts";
export { type Recipe, recipeOptions } from "./recipe/schema.ts";
export { compareWithBaseline, readBaseline } from "./report/regression.ts";
export { type PerplexityResult, type RunReport } from "./report/report.ts";
export { readCorpus } from "./run/corpus.ts";
export { evaluate, planWindows } from "./run/evaluate.ts";
export { finetune, type FinetuneResult, type RunEvent } from "./run/finetune.ts";
export { inspectModel } from "./run/inspect.ts";
export { prepareRun } from "./run/prepare.ts";

/** Exports: Hugging Face folders, adapters, ONNX. */
export { convert } from "./export/convert.ts";
export { generate } from "./export/generate.ts";

/** Mistakes that a user can mend. */
export { UserError } from "./core/errors.ts";
