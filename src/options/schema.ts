// The one schema of a recipe: every option with its type, meaning, unit and default. Flags are made from it.
import * as z from "zod";
import { FEATURES, PARTS, POSITION_FORMS, type TemperaturePart } from "../insertions/parts.ts";
import { DEFAULT_TEMPERATURES } from "../insertions/spec.ts";

/** What the error messages and the help say of a value. */
interface Wording {
  /** Completes "expected …". */
  readonly expected: string;
  /** The placeholder after the flag; without one the key has no flag and is set by `--set`. */
  readonly value?: string;
  readonly choices?: readonly string[];
}

const text = (value: string) => z.string().min(1).meta({ expected: "text", value });
const wordFrom = <const T extends readonly string[]>(choices: T, value: string) =>
  z.enum(choices).meta({ expected: listed(choices), value, choices });
const wholeNumber = (least: number) =>
  z
    .int()
    .min(least)
    .meta({ expected: `a whole number of at least ${least}`, value: "n" });
const wholeNumberOr = <T extends string>(word: T, least: number) =>
  z
    .union([z.literal(word), z.int().min(least)])
    .meta({ expected: `${word} or a whole number of at least ${least}`, value: "n" });
const above0 = () => z.number().positive().meta({ expected: "a number above 0", value: "number" });
const atLeast0 = () =>
  z.number().nonnegative().meta({ expected: "a number of at least 0", value: "number" });
const decayRate = () =>
  z.number().min(0).lt(1).meta({ expected: "a number from 0 to below 1", value: "number" });
const share = () =>
  z.number().gt(0).lt(1).meta({ expected: "a number between 0 and 1", value: "share" });
const onOff = () => z.boolean().meta({ expected: "true or false" });

const DEVICES = "auto, cpu, webgpu, cuda[:n], dml[:n], coreml or tfjs[:gpu|cpu|wasm]";

/** The groups of weights that can train, in the order in which they are listed everywhere. */
export const TUNE_GROUPS = ["temperatures", "norms", "biases", "all"] as const;
export type TuneGroup = (typeof TUNE_GROUPS)[number];

// `temperatures,norms` on the command line is the same as a YAML list.
const tuneGroups = z
  .preprocess(
    (given) => (typeof given === "string" ? given.split(",").map((word) => word.trim()) : given),
    z.array(z.enum(TUNE_GROUPS)).min(1),
  )
  .transform((groups): readonly TuneGroup[] => TUNE_GROUPS.filter((g) => groups.includes(g)))
  .meta({
    expected: `one or several of ${TUNE_GROUPS.join(", ")}`,
    value: "groups",
    choices: TUNE_GROUPS,
  });

// A bare number is the patience, so that the option fits in a flag.
const patienceOrOff = z
  .preprocess(
    (given) => (typeof given === "number" ? { patience: given } : given),
    z.union([z.literal("off"), z.strictObject({ patience: z.int().min(1) })]),
  )
  .meta({ expected: "off or {patience: a whole number of at least 1}", value: "patience" });

// A projection that a recipe names is described completely: what is not mentioned is off.
const partShape = Object.fromEntries(PARTS.map((part) => [part, onOff().default(false)])) as Record<
  TemperaturePart,
  z.ZodDefault<z.ZodBoolean>
>;
const parts = () =>
  z
    .strictObject(partShape)
    .meta({ expected: `{${PARTS.map((part) => `${part}: true or false`).join(", ")}}` });

const { query, key, value } = DEFAULT_TEMPERATURES;

/** Recipe keys and flags have the same words; a flag is the key in kebab-case. */
export const recipeSchema = z.strictObject({
  base: text("model").meta({
    description: "model to fine-tune: a folder, a Hugging Face id[@revision] or an embedded name",
  }),
  data: text("data").meta({
    description: "training text: a file, a folder, a Hugging Face id[:config][@split] or a name",
  }),
  evalData: text("data")
    .nullable()
    .default(null)
    .meta({ description: "held-out text (default: the data's validation part)" }),
  out: text("folder")
    .nullable()
    .default(null)
    .meta({ description: "run folder (default: checkpoints/<base>-<data>-<n>)" }),
  textColumn: text("name")
    .default("text")
    .meta({ description: "column with the text in jsonl and parquet data" }),
  holdOut: share()
    .default(0.05)
    .meta({ description: "share of the data's tail held out where it has no validation part" }),

  tune: tuneGroups
    .default(["temperatures"])
    .meta({ description: "what trains: temperatures, norms, biases, all (comma-separated)" }),
  init: wordFrom(["pretrained", "random"], "how")
    .default("pretrained")
    .meta({ description: "start from the base's weights, or from random ones of its shape" }),
  temperatures: z
    .strictObject({
      query: parts().default(query),
      key: parts().default(key),
      value: parts().default(value),
    })
    .default({ query, key, value })
    .meta({
      expected: `query, key and value, each {${PARTS.join(", ")}}`,
      description: "parts of the temperature that each projection gets",
    }),
  feature: wordFrom(FEATURES, "form")
    .default("gelu")
    .meta({ description: "nonlinearity on the projection inside the token part" }),
  position: wordFrom(POSITION_FORMS, "form")
    .default("tanh")
    .meta({ description: "form of the position part's slope" }),
  maxAddedShare: share()
    .default(0.005)
    .meta({ description: "most new parameters, as a share of the base's" }),

  steps: wholeNumber(1).default(200).meta({ description: "optimizer steps" }),
  context: wholeNumberOr("auto", 2)
    .default("auto")
    .meta({ description: "tokens per sequence; auto is the model's length, at most 1024" }),
  batchSize: wholeNumber(1).default(1).meta({ description: "sequences per micro batch" }),
  gradientAccumulationSteps: wholeNumber(1)
    .default(4)
    .meta({ description: "micro batches per optimizer step" }),
  seed: wholeNumber(0)
    .default(0)
    .meta({ description: "seed of the order of data and random weights" }),
  learningRate: above0()
    .default(1e-2)
    .meta({ description: "peak learning rate of temperatures, norms and biases" }),
  baseLearningRate: above0()
    .default(1e-5)
    .meta({ description: "peak learning rate of the base's weights (tune: all)" }),
  minLearningRate: atLeast0().default(0).meta({ description: "learning rate at the last step" }),
  warmupSteps: wholeNumber(0)
    .default(20)
    .meta({ description: "steps of rising learning rate; by default at most half of steps" }),
  schedule: wordFrom(["constant", "linear", "cosine"], "form")
    .default("cosine")
    .meta({ description: "course of the learning rate after warm-up" }),
  beta1: decayRate().default(0.9).meta({ description: "AdamW's decay of the mean gradient" }),
  beta2: decayRate().default(0.95).meta({ description: "AdamW's decay of the squared gradient" }),
  epsilon: above0().default(1e-8).meta({ description: "AdamW's term against division by zero" }),
  weightDecay: atLeast0()
    .default(0.01)
    .meta({ description: "decoupled decay; never on temperatures, norms or biases" }),
  maxGradNorm: above0().default(1).meta({ description: "gradients are scaled down to this norm" }),

  evalEvery: wholeNumber(1)
    .default(50)
    .meta({ description: "optimizer steps between evaluations" }),
  evalWindows: wholeNumberOr("all", 1)
    .default(64)
    .meta({ description: "windows scored on the way: an even, fixed subset, or all" }),
  reportWindows: wholeNumberOr("all", 1)
    .default("all")
    .meta({ description: "windows scored before and after, for the report" }),
  earlyStopping: patienceOrOff
    .default("off")
    .meta({ description: "evaluations without improvement before stopping, or off" }),
  saveEvery: wholeNumber(1)
    .default(50)
    .meta({ description: "optimizer steps between checkpoints" }),
  keepLast: wholeNumber(1).default(2).meta({ description: "checkpoints kept" }),
  final: wordFrom(["model", "adapter"], "what")
    .default("model")
    .meta({ description: "final/ is a complete model folder, or the temperatures alone" }),

  device: z
    .string()
    .regex(/^(auto|cpu|webgpu|(cuda|dml)(:\d+)?|coreml|tfjs(:(gpu|cpu|wasm))?)$/)
    .meta({ expected: DEVICES, value: "device" })
    .default("auto")
    .meta({ description: DEVICES }),
  precision: wordFrom(["fp32", "fp16", "bf16"], "type")
    .default("fp32")
    .meta({ description: "of frozen weights and activations" }),
  recompute: z
    .union([z.literal("auto"), z.boolean()])
    .meta({ expected: "auto, true or false", value: "when" })
    .default("auto")
    .meta({ description: "recompute activations in the backward pass: slower, less memory" }),
  threads: wholeNumberOr("auto", 1)
    .default("auto")
    .meta({ description: "processor threads; auto is the physical cores" }),
});

/** A resolved recipe: every key present, plain data. */
export type Recipe = DeepReadonly<z.output<typeof recipeSchema>>;
export type RecipeKey = keyof Recipe;

type DeepReadonly<T> = T extends object ? { readonly [K in keyof T]: DeepReadonly<T[K]> } : T;

export interface RecipeOption extends Wording {
  readonly key: RecipeKey;
  readonly description: string;
  /** Undefined where the recipe must name it (base, data). */
  readonly initial: unknown;
  /** As commander wants it, e.g. `--learning-rate <number>`; undefined for keys that only `--set` reaches. */
  readonly flag: string | undefined;
}

/** Every key in the schema's order: what help, flags, error messages and the reference are made of. */
export const recipeOptions: readonly RecipeOption[] = Object.entries(recipeSchema.shape).map(
  ([key, schema]) => {
    const wording = wordingOf(schema);
    return {
      ...wording,
      key: key as RecipeKey,
      initial: "defaultValue" in schema.def ? schema.def.defaultValue : undefined,
      flag: wording.value === undefined ? undefined : flagOf(key, wording.value),
    };
  },
);

/** A key's words in a flag: `learningRate` is `--learning-rate`. */
export function flagName(key: string): string {
  return `--${key.replace(/[A-Z]/g, (capital) => `-${capital.toLowerCase()}`)}`;
}

/** The wording of the value at a path, such as `["temperatures", "query"]`; undefined for unknown paths. */
export function wordingAt(path: readonly PropertyKey[]): Wording | undefined {
  let schema: z.ZodType = recipeSchema;
  for (const part of path) {
    const object = unwrapped(schema);
    if (!(object instanceof z.ZodObject) || !Object.hasOwn(object.shape, part)) return undefined;
    schema = object.shape[part as string] as z.ZodType;
  }
  return wordingOf(schema);
}

// `--recompute` alone means true.
function flagOf(key: string, value: string): string {
  return key === "recompute" ? `${flagName(key)} [${value}]` : `${flagName(key)} <${value}>`;
}

// Wrappers (a default, null allowed) carry the description; what they wrap carries the expectation.
function wordingOf(schema: z.ZodType): Wording & { readonly description: string } {
  const wrapped = inside(schema);
  return {
    ...(wrapped && wordingOf(wrapped)),
    ...(schema.meta() as (Wording & { readonly description: string }) | undefined),
  } as Wording & { readonly description: string };
}

function unwrapped(schema: z.ZodType): z.ZodType {
  const wrapped = inside(schema);
  return wrapped ? unwrapped(wrapped) : schema;
}

function inside(schema: z.ZodType): z.ZodType | undefined {
  return schema instanceof z.ZodDefault || schema instanceof z.ZodNullable
    ? (schema.unwrap() as z.ZodType)
    : undefined;
}

function listed(words: readonly string[]): string {
  return `${words.slice(0, -1).join(", ")} or ${words.at(-1)}`;
}
