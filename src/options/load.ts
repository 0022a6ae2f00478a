// From YAML, `--set path=value` and flags to one checked recipe: later layers win, and all mistakes come at once.
import { LineCounter, isNode, parse, parseDocument, stringify } from "yaml";
import type { Document } from "yaml";
import { UserError, invariant, messageOf, nearest } from "../core/errors.ts";
import { isRecord } from "../files/safetensors-header.ts";
import { flagName, recipeOptions, recipeSchema, wordingAt } from "./schema.ts";
import type { Recipe, RecipeKey } from "./schema.ts";

export interface RecipeSources {
  readonly file?: { readonly path: string; readonly text: string };
  /** `path=value` each, e.g. `temperatures.key.token=true`; the value is YAML. */
  readonly sets?: readonly string[];
  /** By recipe key; strings are read as YAML, undefined means not given. */
  readonly flags?: Readonly<Record<string, unknown>>;
  /** A resumed run's recipe, which takes the place of the defaults. */
  readonly saved?: Recipe;
}

type Tree = Record<string, unknown>;

/** A value that somebody gave, by its dotted path: where from, for the error messages. */
type Origins = Map<string, string>;

/**
 * Resolves a recipe: flag over `--set` over file over saved or default. Throws one UserError that lists every unknown
 * key, wrong value and contradiction, each with its path and where it was given.
 */
export function loadRecipe(sources: RecipeSources): Recipe {
  const tree = defaults(sources.saved);
  const origins: Origins = new Map();
  const problems: string[] = [];
  if (sources.file) layFile(tree, sources.file, origins);
  for (const [path, value, origin] of overrides(sources)) {
    try {
      put(tree, path, typeof value === "string" ? scalar(path, value) : value);
      origins.set(path, origin);
    } catch (error) {
      problems.push(`${path} (${origin}): ${firstLine(messageOf(error))}`);
    }
  }

  const { data, error } = recipeSchema.safeParse(tree, { reportInput: true });
  for (const issue of error?.issues ?? [])
    if (issue.code === "unrecognized_keys")
      problems.push(...issue.keys.map((key) => unknownKey(issue.path, key, origins)));
    else problems.push(wrongValue(issue.path, issue.input, origins));

  const recipe = data && withShortWarmup(data, sources, origins);
  if (recipe) problems.push(...conflicts(recipe, origins));
  if (recipe && problems.length === 0) return recipe;
  throw mistakes(problems);
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

// Without a prototype, so that a key such as `__proto__` is a key like any other, and unknown.
function emptyTree(): Tree {
  return Object.create(null) as Tree;
}

// Later entries win: flags come after `--set`.
function overrides({ sets = [], flags = {} }: RecipeSources): [string, unknown, string][] {
  const fromSets = sets.map((set): [string, unknown, string] => {
    const equals = set.indexOf("=");
    if (equals < 1) throw mistakes([`--set: expected path=value, found ${JSON.stringify(set)}`]);
    return [set.slice(0, equals).trim(), set.slice(equals + 1).trim(), "--set"];
  });
  const fromFlags = Object.entries(flags)
    .filter(([, value]) => value !== undefined)
    .map(([key, value]): [string, unknown, string] => [key, value, flagName(key)]);
  return [...fromSets, ...fromFlags];
}

function layFile(tree: Tree, file: NonNullable<RecipeSources["file"]>, origins: Origins): void {
  const lineCounter = new LineCounter();
  const document = parseDocument(file.text, { lineCounter, logLevel: "error" });
  const flaws = [...document.errors, ...document.warnings].map(({ message }) => message);
  const content = flaws.length === 0 ? contentOf(document, flaws) : {};
  if (flaws.length > 0) throw mistakes(flaws.map((flaw) => `${file.path}: ${firstLine(flaw)}`));
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

function put(tree: Tree, path: string, value: unknown): void {
  const parts = path.split(".");
  let at = tree;
  for (const part of parts.slice(0, -1)) {
    const next = at[part];
    at[part] = Object.assign(emptyTree(), isRecord(next) ? next : {});
    at = at[part] as Tree;
  }
  at[parts.at(-1)!] = value;
}

// `--base 7` and `--set base=7` name a folder called 7.
function scalar(path: string, value: string): unknown {
  const isText = wordingAt(path.split("."))?.expected === "text";
  return isText ? value : parse(value, { logLevel: "error" });
}

function unknownKey(path: readonly PropertyKey[], key: string, origins: Origins): string {
  const full = [...path, key].join(".");
  const known = path.length === 0 ? recipeOptions.map((o) => o.key) : knownAt(path);
  const guess = nearest(key, known);
  const advice = guess ? `; did you mean ${[...path, guess].join(".")}?` : "";
  return `${full}${from(full, origins)}: unknown key${advice}`;
}

function knownAt(path: readonly PropertyKey[]): readonly string[] {
  const initial = recipeOptions.find((o) => o.key === path[0])?.initial;
  const object = path
    .slice(1)
    .reduce<unknown>((at, part) => (isRecord(at) ? at[String(part)] : undefined), initial);
  return isRecord(object) ? Object.keys(object) : [];
}

function wrongValue(issuePath: readonly PropertyKey[], value: unknown, origins: Origins): string {
  // An element of a list, or a part of a union, is described by the key that holds it.
  const path = [...issuePath];
  let wording = wordingAt(path);
  while (!wording && path.pop() !== undefined) wording = wordingAt(path);
  invariant(wording, `the recipe schema has no wording for ${issuePath.join(".")}`);
  const name = path.join(".");
  if (value === undefined) return `${name}: missing; expected ${wording.expected}`;
  const guess = typeof value === "string" && nearest(value, wording.choices ?? []);
  const advice = guess ? `; did you mean ${guess}?` : "";
  return `${name}${from(name, origins)}: expected ${wording.expected}, found ${shown(value)}${advice}`;
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

function from(path: string, origins: Origins): string {
  const origin = origins.get(path) ?? origins.get(path.split(".").slice(0, -1).join("."));
  return origin === undefined ? "" : ` (${origin})`;
}

function mistakes(problems: readonly string[]): UserError {
  return new UserError(
    problems.length === 1
      ? `recipe: ${problems[0]}`
      : `the recipe has ${problems.length} mistakes:\n${problems.map((p) => `  ${p}`).join("\n")}`,
    { hint: "recipes/reference.yaml explains every key" },
  );
}

function firstLine(message: string): string {
  return message.split("\n", 1)[0]!;
}

function shown(value: unknown): string {
  const json = JSON.stringify(value) ?? String(value);
  return json.length > 60 ? `${json.slice(0, 57)}...` : json;
}
