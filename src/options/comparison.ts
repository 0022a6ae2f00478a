// A comparison: a recipe, arms that each change some of it, and the seeds with which each is trained.

import * as z from "zod";
import { quantizeOptions, rowOptions } from "./common.ts";
import { loadRecipe, readYaml, type RecipeFile, type RecipeSources } from "./load.ts";
import type { DeepReadonly, RecipeKey } from "./schema.ts";
import { fromFlags, mistakes, maybe, needed, oneOf, readOptions, wholeNumbers } from "./values.ts";

export type Comparison = DeepReadonly<ReturnType<typeof loadComparison>>;

const seeds = wholeNumbers(0, Number.MAX_SAFE_INTEGER, "of at least 0");
export const seedsOption = maybe(seeds, "seeds of each arm's runs, comma-separated");

// A name is a part of a folder's.
const arms = z
  .record(z.string().regex(/^\w[\w.+-]{0,63}$/), z.record(z.string(), z.unknown()))
  .refine((arms) => Object.keys(arms).length > 0)
  .meta({
    expected:
      "names (letters, digits, . + - _) with the recipe's keys that each changes, as {norms: {tune: norms}}",
  });

const lr = maybe(oneOf(["search", "given"], "how"), "where the learning rate is from");
const comparisonShape = { arms: needed(arms, "what is compared"), seeds: seedsOption, lr };

const shared = { ...rowOptions, ...quantizeOptions };

/** What arms must have alike, so that they are scored on the same windows by the same base; `seeds` gives seeds. */
const ALIKE = [
  ...(["base", "data", "evalData", "holdOut", "maxTokens", "context", "reportWindows"] as const),
  ...(Object.keys(shared) as (keyof typeof shared)[]),
  ...(["seed", "out"] as const),
] satisfies readonly RecipeKey[];

/** Resolves a comparison: an arm over flag over `--set` over environment over file over default. */
export function loadComparison(
  sources: RecipeSources & {
    readonly file: RecipeFile;
    readonly seeds?: string | readonly number[] | undefined;
  },
) {
  const { file, seeds } = sources;
  const { content, originOf } = readYaml(file);
  const keys = (["arms", "seeds", "lr"] as const).filter((key) => content[key] !== undefined);
  const inFile = keys.map((key) => [key, content[key], originOf(key), true] as const);
  const given = [...inFile, ...fromFlags({ seeds })];
  const hint = "docs/compare.md explains a comparison";
  const asked = readOptions(comparisonShape, given, { hint });
  if (content["seed"] !== undefined && asked.seeds)
    throw mistakes([`seed (${originOf("seed")}): a comparison's seeds are in seeds`], hint);
  const common = loadRecipe({ ...sources, arm: null });
  const all = Object.keys(asked.arms).map((name) => {
    const origin = `arm ${name}, ${originOf("arms", name, "lr")}`;
    const how = readOptions({ lr }, [["lr", asked.arms[name]!["lr"] ?? asked.lr, origin, true]]);
    /** Whether its learning rate is searched around the recipe's. */
    const isSearched = how.lr === "search";
    return { name, recipe: loadRecipe({ ...sources, arm: name }), isSearched };
  });
  const lines = all.flatMap(({ name, recipe }) => {
    const isSame = (key: RecipeKey) => JSON.stringify(recipe[key]) === JSON.stringify(common[key]);
    // With held-out text of its own a comparison may be of what is learnt.
    const isFree = (key: RecipeKey) => key === "data" && recipe.evalData !== null;
    return ALIKE.filter((key) => !isSame(key) && !isFree(key)).map((key) => {
      const [own, others] = [recipe[key], common[key]].map((value) => JSON.stringify(value));
      return `arm ${name} (${originOf("arms", name, key)}): ${key} is ${own}, but ${others} in the recipe`;
    });
  });
  const alike = "arms compare where base, data, held-out text, windows and seeds are the recipe's";
  if (lines.length > 0) throw mistakes(lines, alike);
  return { out: common.out, arms: all, seeds: asked.seeds ?? [common.seed] };
}
