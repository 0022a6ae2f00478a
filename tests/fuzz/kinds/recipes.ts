// Recipes in YAML: what is given is what the run gets, or the mistake is named.

import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { isDeepStrictEqual } from "node:util";
import { parse, stringify } from "yaml";
import { packageRoot } from "../../../src/files/package-root.ts";
import { loadRecipe, recipeToYaml } from "../../../src/options/load.ts";
import type { Recipe } from "../../../src/options/schema.ts";
import { expect, reading } from "../contract.ts";
import { happens, mutateBytes, mutateJson, pick } from "../mutate.ts";
import { type Prepare, subject } from "../subject.ts";

interface Case {
  readonly text: string;
  readonly sets: readonly string[];
}

const inserts = [
  "a: &a [x]\nb: *a\n",
  "<<: {steps: 3}\n",
  "steps: !!str 5\n",
  "? [a]\n: 1\n",
  "steps: 1_0\n",
]
  .concat([
    "steps: 0x10\n",
    "base: |\n  a\n  b\n",
    "data: !!binary aGk=\n",
    "--- \nsteps: 1\n",
    "%TAG ! x\n",
  ])
  .concat([
    "seed: .inf\n",
    "seed: .nan\n",
    "tune: [norms, norms]\n",
    "__proto__: {steps: 9}\n",
    "steps: ~\n",
  ])
  .concat([
    "temperatures: {__proto__: {token: true}}\n",
    "constructor: 1\n",
    `a: ${"[".repeat(3000)}\n`,
  ])
  .concat([
    "a: &a [1,1]\nb: &b [*a,*a]\nc: &c [*b,*b]\nd: &d [*c,*c]\ne: [*d,*d]\n",
    "\tsteps: 1\n",
  ]);

export const recipes: Prepare = async () => {
  const root = packageRoot();
  const names = [
    "recipes/reference.yaml",
    "recipes/demo.yaml",
    "checkpoints/tiny-gpt2/recipe.yaml",
  ];
  const texts = await Promise.all(names.map((name) => readFile(join(root, name), "utf8")));
  const file = (text: string) => ({ path: "dir/my-recipe.yaml", text });
  // All keys with their resolved values, in flow style, where one line's damage is one key's.
  texts.push(recipeToYaml(loadRecipe({ file: file(texts[0]!) })));
  const bases = texts.map((text) => {
    return {
      text,
      json: parse(text) as Record<string, unknown>,
      recipe: loadRecipe({ file: file(text) }),
    };
  });
  return subject<Case & { base: (typeof bases)[number] }>({
    mutate: (random) => {
      const base = pick(random, bases);
      const sets = happens(random, 0.1)
        ? [mutateBytes(Buffer.from("temperatures.key.token=true"), random).toString()]
        : [];
      const at = Math.max(0, base.text.indexOf("\n", random.uniform() * base.text.length) + 1);
      const text = pick(random, [
        () => mutateJson(base.json, random),
        () => mutateJson(base.json, random),
        () =>
          stringify(
            JSON.parse(mutateJson(base.json, random).replaceAll(/\[{50,}.*?\]{50,}/g, "1")),
          ),
        () => mutateBytes(Buffer.from(base.text), random).toString(),
        () => base.text.slice(0, at) + pick(random, inserts) + base.text.slice(at),
      ]);
      let made;
      try {
        made = text();
      } catch {
        made = "steps: 0"; // what was mutated is no JSON, or nested too deep to be written as YAML
      }
      return { base, text: made, sets };
    },
    check: async ({ base, text, sets }) => {
      const found = await reading(["my-recipe.yaml", "recipe", "--set", "missing; expected"], () =>
        loadRecipe({ file: file(text), sets }),
      );
      if ("refusal" in found) return "refused";
      const recipe = found.value;
      const again = loadRecipe({ file: file(recipeToYaml(recipe)) });
      expect(
        isDeepStrictEqual(recipe, again),
        () => `written and read again it is another: ${recipeToYaml(recipe)}`,
      );
      const json = (parse(text, { logLevel: "silent" }) ?? {}) as Record<string, unknown>;
      for (const key of Object.keys(recipe) as (keyof Recipe)[]) {
        if (key === "warmupSteps" || key === "temperatures" || sets.length > 0) continue;
        const isSame = isDeepStrictEqual(json[key], base.json[key]);
        const values = [recipe[key], isSame ? base.recipe[key] : json[key]];
        const isRight = isDeepStrictEqual(...(values as [unknown, unknown]));
        // Lists of words, formats by other names, a patience by its number alone.
        const isShort = ["tune", "precision", "earlyStopping"].includes(key) && !isSame;
        // What is left out has its default, which the base may not have.
        expect(
          isRight || isShort || json[key] === undefined,
          () => `${key} is ${JSON.stringify(recipe[key])}: ${text}`,
        );
      }
      return isDeepStrictEqual(recipe, base.recipe) ? "same" : "other";
    },
  });
};
