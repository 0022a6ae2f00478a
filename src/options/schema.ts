// The one schema of a recipe: every option with its type, meaning, unit and default. Flags are made from it.
import * as z from "zod";
import { PACKING_CHOICES } from "../data/training.ts";
import { LORA_MODULES } from "../insertions/lora.ts";
import { choiceOf, DEFAULT_TEMPERATURES, formsOf, PARTS } from "../insertions/parts.ts";
import { type Projection, PROJECTIONS } from "../nn/attention.ts";
import { quantizeOptions, rowOptions } from "./common.ts";
import * as kind from "./values.ts";

const { needed, oneOf, orNull, preset, share, shared, text, wholeNumber, wholeNumberOr } = kind;

/** The groups of weights that can train, in the order in which they are listed everywhere. */
export const TUNE_GROUPS = ["temperatures", "lora", "norms", "biases", "all"] as const;
export type TuneGroup = (typeof TUNE_GROUPS)[number];

/** What can be asked of a model that needs no data but its own. */
export const TASK_NAMES = [
  ...(["lambada", "lambada_openai", "piqa", "hellaswag", "winogrande"] as const),
  ...(["arc_easy", "arc_challenge", "boolq", "passkey"] as const),
] as const;

const tuneGroups = kind
  .listOf(z.enum(TUNE_GROUPS))
  .transform((groups): readonly TuneGroup[] => TUNE_GROUPS.filter((g) => groups.includes(g)))
  .meta({ expected: `some of ${TUNE_GROUPS.join(", ")}`, value: "groups", choices: TUNE_GROUPS });

// A bare number is the patience, so that the option fits in a flag.
const patienceOrOff = z
  .preprocess(
    (given) => (typeof given === "number" ? { patience: given } : given),
    z.union([z.literal("off"), z.strictObject({ patience: z.int().min(1) })]),
  )
  .meta({ expected: "off or {patience: a whole number of at least 1}", value: "patience" });

const source = z.strictObject({
  path: z.string().min(1),
  weight: z.number().positive().nullable().default(null),
  split: z.string().min(1).nullable().default(null),
});
// A single name stays one, so that it reads the same in every recipe.
const sources = z
  .preprocess(
    (given: unknown) => {
      if (!Array.isArray(given)) return given;
      const listed = given.map((one: unknown) => (typeof one === "string" ? { path: one } : one));
      return given.length === 1 && typeof given[0] === "string" ? given[0] : listed;
    },
    z.union([z.string().min(1), z.array(source).min(1)]),
  )
  .meta({ expected: "text, or a list of {path, weight, split}", value: "data", isList: true });

const recompute = z
  .union([z.literal("auto"), z.boolean()])
  .meta({ expected: "auto, true or false", value: "[when]", choices: ["auto", "true", "false"] });

const events = z
  .union([z.boolean(), z.string().min(1)])
  .meta({ expected: "true, false or a folder", value: "[folder]" });

const gigabytes = () => kind.autoOr(kind.above0());
const SCHEDULES = ["constant", "linear", "cosine"] as const;

const forEach = <K extends string, T>(keys: readonly K[], make: (key: K) => T) =>
  Object.fromEntries(keys.map((key) => [key, make(key)])) as Record<K, T>;

const { feature, position, hidden, tie, ...initialParts } = DEFAULT_TEMPERATURES;
// A projection that a recipe names is described completely: what is not mentioned is off.
const parts = (projection: Projection) => {
  const kinds = forEach(PARTS, (part) => {
    const { expected, accepts } = choiceOf(part, projection);
    return z.custom<boolean | number>(accepts).default(false).meta({ expected });
  });
  return z.strictObject(kinds).meta({ expected: `{${PARTS.join(", ")}}` });
};
const temperatures = z
  .strictObject(forEach(PROJECTIONS, (name) => parts(name).default(initialParts[name])))
  .meta({ expected: `${PROJECTIONS.join(", ")}, each {${PARTS.join(", ")}}` });
export const temperaturesOption = kind.maybe(
  temperatures.meta({ ...temperatures.meta(), value: "parts" }),
  "temperatures to put in, as {query: {logn: 1024}, value: {}}",
);

const loraModules = kind
  .listOf(z.string().min(1))
  .meta({ expected: `${LORA_MODULES.join(", ")} or names of linear layers` });
const lora = z
  .strictObject({
    rank: wholeNumber(1).default(8),
    alpha: kind.above0().default(16),
    modules: loraModules.default(["attention"]),
  })
  .meta({ expected: "{rank, alpha, modules}" });

/** Recipe keys and flags have the same words; a flag is the key in kebab-case. */
export const recipeSchema = z.strictObject({
  base: needed(text("model"), "model to fine-tune: a folder, Hugging Face id[@revision] or name"),
  data: needed(sources, "training text: a file, folder, pattern, id[:config][@split] or name"),
  evalData: orNull(text("data"), "held-out text (default: the data's validation part)"),
  out: orNull(text("folder"), "run folder (default: checkpoints/<base>-<data>-<n>)"),
  ...rowOptions,
  maxTokens: orNull(wholeNumber(1), "most tokens read of each part of the data (default: all)"),
  holdOut: preset(share(), 0.05, "share of the data held out where it has no validation part"),

  tune: preset(tuneGroups, ["temperatures"], "what trains, comma-separated"),
  ...quantizeOptions,
  init: preset(oneOf(["pretrained", "random"], "how"), "pretrained", "what it starts from"),
  temperatures: preset(temperatures, initialParts, "parts of each projection's temperature"),
  feature: preset(oneOf(formsOf("feature"), "form"), feature, "nonlinearity of the token part"),
  position: preset(oneOf(formsOf("position"), "form"), position, "form of the position's slope"),
  hidden: preset(oneOf(formsOf("hidden"), "how"), hidden, "the token part's hidden layer"),
  tie: preset(oneOf(formsOf("tie"), "what"), tie, "what shares one set of parameters"),
  maxAddedShare: preset(share(), 0.005, "most parameters of temperatures, a share of the base's"),
  lora: preset(lora, lora.parse({}), "of LoRA, where tune names it"),

  steps: preset(wholeNumber(1), 200, "optimizer steps"),
  context: preset(wholeNumberOr("auto", 2), "auto", "tokens per sequence; auto: at most 1024"),
  packing: preset(oneOf(PACKING_CHOICES, "how"), "auto", "how texts come into sequences"),
  batchSize: preset(wholeNumberOr("auto", 1), 1, "sequences per micro batch; auto: what fits"),
  gradientAccumulationSteps: preset(wholeNumber(1), 4, "micro batches (auto: sequences) per step"),
  seed: preset(wholeNumber(0), 0, "seed of the order of data and random weights"),
  learningRate: preset(kind.above0(), 3e-2, "peak learning rate of temperatures, norms and biases"),
  loraLearningRate: preset(kind.above0(), 1e-3, "the same of LoRA (tune: lora)"),
  baseLearningRate: preset(kind.above0(), 1e-5, "the same of the base's weights (tune: all)"),
  minLearningRate: preset(kind.atLeast0(), 0, "learning rate at the last step"),
  warmupSteps: preset(wholeNumber(0), 20, "steps of rising learning rate; by itself at most half"),
  schedule: preset(oneOf(SCHEDULES, "form"), "cosine", "course of the rate after warm-up"),
  beta1: preset(kind.decayRate(), 0.9, "AdamW's decay of the mean gradient"),
  beta2: preset(kind.decayRate(), 0.95, "AdamW's decay of the squared gradient"),
  epsilon: preset(kind.above0(), 1e-8, "AdamW's term against division by zero"),
  weightDecay: preset(kind.atLeast0(), 0.01, "decay of matrices, never of other weights"),
  maxGradNorm: preset(kind.above0(), 1, "gradients are scaled down to this norm"),

  evalEvery: preset(wholeNumber(1), 50, "optimizer steps between evaluations"),
  evalWindows: preset(wholeNumberOr("all", 1), 64, "windows scored on the way: an even subset"),
  reportWindows: preset(wholeNumberOr("all", 1), "all", "windows scored before and after"),
  tasks: orNull(kind.someOf(TASK_NAMES, "names"), "answered before and after, comma-separated"),
  earlyStopping: preset(patienceOrOff, "off", "evaluations without improvement before stopping"),
  saveEvery: preset(wholeNumber(1), 50, "optimizer steps between checkpoints"),
  keepLast: preset(wholeNumber(1), 2, "checkpoints kept"),
  tensorboard: preset(events, false, "event files, in the run's folder or in one of their own"),
  final: preset(oneOf(["model", "adapter"], "what"), "model", "what final/ holds"),

  device: shared.device,
  deviceMemory: preset(gigabytes(), "auto", "free GB of a GPU; auto: ask its driver"),
  precision: preset(kind.autoOr(kind.numberFormat()), "fp32", "of frozen weights and activations"),
  maxMemory: preset(gigabytes(), "auto", "GB that the run may take; auto: what is free"),
  recompute: preset(recompute, "auto", "recompute activations: slower, less memory"),
  threads: shared.threads,
});

/** A resolved recipe: every key present, plain data. */
export type Recipe = DeepReadonly<z.output<typeof recipeSchema>>;
export type RecipeKey = keyof Recipe;

/** Where a run computes, what it may take there, and where it leaves things: what comes of it does not depend on that. */
export function partedByPlace(recipe: Recipe) {
  const { device, deviceMemory, maxMemory, threads, out, tensorboard, ...others } = recipe;
  return { place: { device, deviceMemory, maxMemory, threads, out, tensorboard }, others };
}

export type DeepReadonly<T> = T extends object
  ? { readonly [K in keyof T]: DeepReadonly<T[K]> }
  : T;

export type RecipeSource = z.input<typeof source>;

/** What a recipe trains on, each source by itself. */
export const sourcesOf = ({ data }: Pick<Recipe, "data">) =>
  typeof data === "string" ? [{ path: data, weight: null, split: null }] : data;

/** Headings of the help, each by the first key below it. */
const headings: { readonly [key in RecipeKey]?: string } = {
  base: "Model and data:",
  tune: "What trains:",
  steps: "Training:",
  evalEvery: "Evaluation and what is left:",
  device: "Machine:",
};
export const recipeOptions: readonly kind.Option<RecipeKey>[] = kind
  .optionsOf(recipeSchema.shape)
  .map((option, i, all) => {
    const first = all.slice(0, i + 1).findLast(({ key }) => headings[key]);
    return { ...option, group: first && headings[first.key] };
  });

/** Sequences of an optimizer step, however many a micro batch has. */
export const sequencesOf = ({ batchSize, gradientAccumulationSteps }: Recipe) =>
  (batchSize === "auto" ? 1 : batchSize) * gradientAccumulationSteps;
