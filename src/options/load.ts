// From YAML, `--set path=value` and flags to one checked recipe: later layers win, and all mistakes come at once.

import { readdir, readFile, stat } from "node:fs/promises";
import { basename, join } from "node:path";
import { isNode, LineCounter, parseDocument, stringify } from "yaml";
import { devicesIn } from "../engines/devices.ts";
import { messageOf, nearest, UserError } from "../core/errors.ts";
import { isRecord, type JsonObject, shown } from "../core/json.ts";
import { INSERTION_KINDS } from "../insertions/kinds.ts";
import { partedByPlace, recipeOptions, recipeSchema, sequencesOf, sourcesOf } from "./schema.ts";
import type { Recipe, RecipeKey } from "./schema.ts";
import { fromEnvironment, fromFlags, mistakes, readOptions } from "./values.ts";
import type { Given, Problem } from "./values.ts";

export type RecipeFile = Readonly<{ path: string; text: string }>;

export interface RecipeSources {
  readonly file?: RecipeFile | undefined;
  readonly env?: Readonly<Record<string, string | undefined>>;
  /** `path=value` each, e.g. `temperatures.key.token=true`; the value is YAML. */
  readonly sets?: readonly string[];
  /** By recipe key; strings are read as YAML, undefined means not given. */
  readonly flags?: JsonObject;
  /** The same from a program, with a program's values. */
  readonly values?: JsonObject;
  /** A resumed run's recipe, which takes the place of the defaults. */
  readonly saved?: Recipe;
  /** One of the file's, which is a comparison's, laid over all; null: what its arms have in common. */
  readonly arm?: string | null;
}

const hint = "ssa recipes show reference explains every key";
const names = "give --base and --data, e.g. --base tiny-gpt2 --data notes.txt, or --recipe demo";
const defaults = Object.fromEntries(recipeOptions.map(({ key, initial }) => [key, initial]));

/**
 * Resolves a recipe: flag over `--set` over environment over file over saved or default. Throws one UserError that
 * lists every unknown key, wrong value and contradiction, each with its path and where it was given.
 */
export function loadRecipe(sources: RecipeSources): Recipe {
  const { file, env = {}, sets = [], flags = {}, values = {}, saved, arm } = sources;
  const base: JsonObject = saved ?? defaults;
  const { content, originOf } = file ? readYaml(file) : NO_FILE;
  const { arms, seeds: _, lr: __, ...common } = content;
  if (file && arms !== undefined && arm === undefined)
    throw new UserError(`${file.path} is a comparison: it has arms`, {
      hint: `ssa compare --recipe ${file.path} trains them`,
    });
  const changes = isRecord(arms) && arm ? arms[arm] : undefined;
  const { lr: ___, ...changed } = isRecord(changes) ? changes : {};
  const given = [
    ...givenBy(arm === undefined ? content : common, originOf, base),
    ...fromEnvironment(recipeSchema.shape, env),
    ...sets.map(assignment),
    ...fromFlags(flags),
    ...fromFlags(values, () => "options"),
    ...(arm ? givenBy(changed, (...keys) => `arm ${arm}, ${originOf("arms", arm, ...keys)}`) : []),
  ];
  // Warm-up that nobody asked for lets a short run reach its peak.
  const isAsked = given.some(([path]) => path === "warmupSteps");
  const settled = (recipe: Recipe): Recipe => {
    const most = saved ? recipe.steps : Math.floor(recipe.steps / 2);
    return isAsked ? recipe : { ...recipe, warmupSteps: Math.min(recipe.warmupSteps, most) };
  };
  const check = (recipe: Recipe) => conflicts(settled(recipe));
  const isNamed = ["base", "data"].every((key) => base[key] ?? given.some(([at]) => at === key));
  const how = { base, conflicts: check, hint: isNamed ? hint : names };
  return settled(readOptions(recipeSchema.shape, given, how));
}

/** The resolved recipe as YAML that `loadRecipe` reads back to the same values. */
export const recipeToYaml = (recipe: Recipe) => stringify(recipe, { lineWidth: 0 });

/**
 * The recipe that a run began with, which may get more steps and another place, its device one of the same kind; what
 * else is given otherwise is refused.
 */
export function resumedRecipe(file: RecipeFile, sources: RecipeSources): Recipe {
  const saved = loadRecipe({ file });
  const given = loadRecipe({ ...sources, env: {}, saved });
  const kindOf = ({ device }: Recipe) => device.split(/[:,]/)[0];
  const { place } = partedByPlace(saved);
  const isFree = (key: RecipeKey) =>
    (key in place && (key !== "device" || kindOf(given) === kindOf(saved))) ||
    (key === "steps" && given.steps > saved.steps) ||
    (/^(batchSize|gradientAcc)/.test(key) && sequencesOf(given) === sequencesOf(saved));
  const changes = recipeOptions.flatMap(({ key }) => {
    const [was, now] = [saved[key], given[key]].map((value) => JSON.stringify(value));
    return was === now || isFree(key) ? [] : [`${key} is ${was}, not ${now}`];
  });
  if (changes.length === 0) return { ...given, out: saved.out };
  throw new UserError(`the run has another recipe, ${file.path}: ${changes.join("; ")}`, {
    hint: "resume without these options, or start a new run; only --steps may grow, and --device name others of its kind",
  });
}

/** The names of the shipped recipes, sorted; `results/paper` is in a folder. */
export async function shippedRecipes(packageRoot: string): Promise<readonly string[]> {
  const files = await readdir(join(packageRoot, "recipes"), { recursive: true });
  const recipes = files.filter((file) => file.endsWith(".yaml"));
  return recipes.map((file) => file.replace(/\.yaml$/, "").replaceAll("\\", "/")).sort();
}

export const readRecipe = async (path: string): Promise<RecipeFile> => {
  return { path, text: await readFile(path, "utf8") };
};

/** A recipe given by path (a file that exists) or by name; otherwise a UserError with the nearest name. */
export async function findRecipe(nameOrPath: string, packageRoot: string): Promise<RecipeFile> {
  const entry = await stat(nameOrPath).catch(() => undefined);
  if (entry?.isFile()) return readRecipe(nameOrPath);
  const shipped = await shippedRecipes(packageRoot);
  const path = join(packageRoot, "recipes", `${nameOrPath}.yaml`);
  if (shipped.includes(nameOrPath)) return readRecipe(path);
  const guess = nearest(basename(nameOrPath).replace(/\.ya?ml$/, ""), shipped);
  throw new UserError(`${nameOrPath}: neither a recipe file nor the name of a shipped recipe`, {
    hint: guess ? `did you mean --recipe ${guess}?` : `shipped recipes: ${shipped.join(", ")}`,
  });
}

function assignment(set: string): Given {
  const [, path, value] = /^\s*([^=]*[^=\s])\s*=\s*([^]*?)\s*$/.exec(set) ?? [];
  if (path === undefined)
    throw new UserError(`--set: expected path=value, found ${shown(set, 60)}`, { hint });
  return [path, value, "--set"];
}

type Origin = (...keys: readonly string[]) => string;
const NO_FILE = { content: {} as JsonObject, originOf: () => "" };

/** A file's keys and values, and where the value at a path is. */
export function readYaml({ path, text }: RecipeFile) {
  const lineCounter = new LineCounter();
  const document = parseDocument(text, { lineCounter, logLevel: "error" });
  const flaws = [...document.errors, ...document.warnings].map(({ message }) => message);
  let content: unknown;
  try {
    if (flaws.length === 0) content = document.toJS() ?? {};
  } catch (error) {
    flaws.push(messageOf(error)); // an alias without its anchor, or too many
  }
  if (!isRecord(content)) {
    if (flaws.length === 0) flaws.push(`expected keys and values, found ${shown(content, 60)}`);
    const said = flaws.map((of) => of.replace(/; please use[^]*/, ", expected one").split("\n"));
    const lines = said.map(([what, , line = ""]) => `${path}: ${what} ${line.trim()}`.trimEnd());
    throw mistakes(lines, hint);
  }
  const originOf = (...keys: readonly string[]) => {
    const node = document.getIn(keys, true);
    const line = isNode(node) && node.range ? lineCounter.linePos(node.range[0]).line : undefined;
    return line === undefined ? path : `${path}:${line}`;
  };
  return { content, originOf };
}

/** What keys give, over `base` where what they give is not laid over other layers. */
function givenBy(content: JsonObject, originOf: Origin, base?: JsonObject): Given[] {
  const given = (value: unknown, ...keys: readonly string[]): Given => {
    return [keys.join("."), value, originOf(...keys), true];
  };
  return Object.entries(content).flatMap(([key, value]) => {
    // Temperatures are laid over one projection at a time; every other key is replaced.
    if (key !== "temperatures" || !isRecord(value)) return [given(value, key)];
    const projections = Object.entries(value).map(([name, of]) => given(of, key, name));
    return base ? [given(base[key], key), ...projections] : projections;
  });
}

function conflicts(recipe: Recipe): Problem[] {
  const { steps, warmupSteps, learningRate, minLearningRate, temperatures, tune } = recipe;
  const parts = Object.values(temperatures).flatMap((of) => Object.values(of));
  const isInserted = tune.every((group) => INSERTION_KINDS.some((kind) => kind === group));
  const fitsAdapter = isInserted && recipe.init === "pretrained";
  const adapter =
    "an adapter holds temperatures and LoRA over a pretrained base only; use final: model, or tune: temperatures or lora with init: pretrained";
  const rate = `${minLearningRate} is more than learningRate, ${learningRate}`;
  const { gradientAccumulationSteps: number, device } = recipe;
  const devices = devicesIn(device).length;
  const idle = `${devices} devices, but gradientAccumulationSteps gives them ${number} micro batch${number === 1 ? "" : "es"} a step`;
  const off = tune.includes("temperatures") && !parts.some(Boolean);
  const weighed = sourcesOf(recipe).filter(({ weight }) => weight !== null);
  const isMixed = weighed.length % sourcesOf(recipe).length !== 0;
  const isQuantized = recipe.quantize !== "none";
  const frozen = "all trains matrices, which a quantised base has only frozen; use quantize: none";
  const rules: readonly (readonly [isBroken: boolean, key: RecipeKey, what: string])[] = [
    [warmupSteps > steps, "warmupSteps", `${warmupSteps} is more than steps, ${steps}`],
    [minLearningRate > learningRate, "minLearningRate", rate],
    [off, "temperatures", "every part is off, but tune names temperatures"],
    [devices > number, "device", idle],
    [isMixed, "data", "some have a weight and some have none; give one to each or to none"],
    [isQuantized && tune.includes("all"), "tune", frozen],
    [recipe.final === "adapter" && !fitsAdapter, "final", adapter],
  ];
  return rules.flatMap(([isBroken, ...problem]) => (isBroken ? [problem] : []));
}
