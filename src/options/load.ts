// From YAML, `--set path=value` and flags to one checked recipe: later layers win, and all mistakes come at once.
import { type Document, isNode, LineCounter, parseDocument, stringify } from "yaml";
import { messageOf } from "../core/errors.ts";
import { isRecord, shown } from "../core/json.ts";
import {
  check,
  emptyTree,
  from,
  fromEnvironment,
  fromFlags,
  type Given,
  lay,
  mistakes,
  type Origins,
  type Tree,
} from "./check.ts";
import { type Recipe, type RecipeKey, recipeOptions, recipeSchema } from "./schema.ts";

export interface RecipeSources {
  readonly file?: { readonly path: string; readonly text: string };
  /** Environment variables. */
  readonly env?: Readonly<Record<string, string | undefined>>;
  /** `path=value` each, e.g. `temperatures.key.token=true`; the value is YAML. */
  readonly sets?: readonly string[];
  /** By recipe key; strings are read as YAML, undefined means not given. */
  readonly flags?: Readonly<Record<string, unknown>>;
  /** The same from a program, with a program's values. */
  readonly values?: Readonly<Record<string, unknown>>;
  /** A resumed run's recipe, which takes the place of the defaults. */
  readonly saved?: Recipe;
}

/**
 * Resolves a recipe: flag over `--set` over environment over file over saved or default. Throws one UserError that
 * lists every unknown key, wrong value and contradiction, each with its path and where it was given.
 */
export function loadRecipe(sources: RecipeSources): Recipe {
  const { file, env = {}, sets = [], flags = {}, values = {} } = sources;
  const tree = defaults(sources.saved);
  const origins: Origins = new Map();
  if (file) layFile(tree, file, origins);
  const given = [
    ...fromEnvironment(recipeSchema.shape, env),
    ...sets.map(assignment),
    ...fromFlags(flags),
    ...fromFlags(values, () => "options"),
  ];
  lay(recipeSchema, tree, given, origins);
  const { data, problems } = check(recipeSchema, tree, origins);
  const recipe = data && withShortWarmup(data, sources, origins);
  if (recipe) problems.push(...conflicts(recipe, origins));
  if (recipe && problems.length === 0) return recipe;
  throw recipeMistakes(problems);
}

/** The resolved recipe as YAML that `loadRecipe` reads back to the same values. */
export function recipeToYaml(recipe: Recipe): string {
  return stringify(recipe, { lineWidth: 0 });
}

export interface Contradiction {
  readonly key: RecipeKey;
  readonly saved: unknown;
  readonly given: unknown;
}

/** Keys in which a resumed run's resolved recipe would differ from its saved one; the run folder may have moved. */
export function contradictions(recipe: Recipe, saved: Recipe): readonly Contradiction[] {
  return recipeOptions
    .map(({ key }) => ({ key, saved: saved[key], given: recipe[key] }))
    .filter((c) => c.key !== "out" && JSON.stringify(c.saved) !== JSON.stringify(c.given));
}

function defaults(saved: Recipe | undefined): Tree {
  const tree = emptyTree();
  for (const { key, initial } of recipeOptions) {
    const value = saved ? saved[key] : initial;
    if (value !== undefined) tree[key] = structuredClone(value);
  }
  return tree;
}

function assignment(set: string): Given {
  const equals = set.indexOf("=");
  if (equals < 1) throw recipeMistakes([`--set: expected path=value, found ${shown(set)}`]);
  return [set.slice(0, equals).trim(), set.slice(equals + 1).trim(), "--set"];
}

function layFile(tree: Tree, file: NonNullable<RecipeSources["file"]>, origins: Origins): void {
  const lineCounter = new LineCounter();
  const document = parseDocument(file.text, { lineCounter, logLevel: "error" });
  const flaws = [...document.errors, ...document.warnings].map(({ message }) => message);
  const content = flaws.length === 0 ? contentOf(document, flaws) : {};
  if (flaws.length > 0)
    throw recipeMistakes(flaws.map((flaw) => `${file.path}: ${firstLine(flaw)}`));
  const place = (path: readonly string[]) => {
    const node = document.getIn(path, true);
    const offset = isNode(node) ? node.range?.[0] : undefined;
    return offset === undefined ? file.path : `${file.path}:${lineCounter.linePos(offset).line}`;
  };
  for (const [key, value] of Object.entries(content)) {
    const base = tree[key];
    // Temperatures are laid over one projection at a time; every other key is replaced.
    const isLaid = key === "temperatures" && isRecord(base) && isRecord(value);
    tree[key] = isLaid ? { ...base, ...value } : value;
    origins.set(key, place([key]));
    for (const inner of isRecord(value) ? Object.keys(value) : [])
      origins.set(`${key}.${inner}`, place([key, inner]));
  }
}

function contentOf(document: Document, flaws: string[]): Tree {
  try {
    const content: unknown = document.toJS() ?? {};
    if (isRecord(content)) return content;
    flaws.push(`expected keys and values, found ${shown(content)}`);
  } catch (error) {
    flaws.push(messageOf(error)); // an alias without its anchor, or too many
  }
  return {};
}

// Warm-up that nobody asked for lets a short run reach its peak.
function withShortWarmup(recipe: Recipe, { saved }: RecipeSources, origins: Origins): Recipe {
  if (origins.has("warmupSteps")) return recipe;
  const most = saved ? recipe.steps : Math.floor(recipe.steps / 2);
  return { ...recipe, warmupSteps: Math.min(recipe.warmupSteps, most) };
}

/** Checks of keys against each other, after each is right by itself. */
function conflicts(recipe: Recipe, origins: Origins): string[] {
  const found: string[] = [];
  const check = (isFine: boolean, key: RecipeKey, message: string) => {
    if (!isFine) found.push(`${key}${from(key, origins)}: ${message}`);
  };
  const { steps, warmupSteps, learningRate, minLearningRate, temperatures, tune } = recipe;
  check(warmupSteps <= steps, "warmupSteps", `${warmupSteps} is more than steps, ${steps}`);
  check(
    minLearningRate <= learningRate,
    "minLearningRate",
    `${minLearningRate} is more than learningRate, ${learningRate}`,
  );
  check(
    !tune.includes("temperatures") ||
      Object.values(temperatures).some((parts) => Object.values(parts).includes(true)),
    "temperatures",
    "every part is off, but tune names temperatures",
  );
  check(
    recipe.final === "model" || (tune.join() === "temperatures" && recipe.init === "pretrained"),
    "final",
    "an adapter holds temperatures over a pretrained base only; use final: model, or tune: temperatures with init: pretrained",
  );
  return found;
}

function recipeMistakes(problems: readonly string[]) {
  const [first, ...others] = problems;
  return mistakes(
    others.length === 0 ? [`recipe: ${first}`] : problems,
    "the recipe has",
    "recipes/reference.yaml explains every key",
  );
}

function firstLine(message: string): string {
  return message.split("\n", 1)[0]!;
}
