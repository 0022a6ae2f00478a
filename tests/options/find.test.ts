// Recipes by path and by name, and what is said of a typing mistake.
import assert from "node:assert/strict";
import { mkdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { test } from "node:test";
import { UserError } from "../../src/core/errors.ts";
import { findRecipe, shippedRecipes } from "../../src/options/load.ts";
import { sharedFolder } from "../helpers.ts";

test("a recipe is found by path or by name; a mistyped one gets the nearest", async () => {
  const root = sharedFolder();
  await mkdir(join(root, "recipes"));
  const [demo, mine] = [join(root, "recipes", "demo.yaml"), join(root, "mine.yml")];
  await writeFile(demo, "");
  await writeFile(join(root, "recipes", "RESULTS.md"), "");
  await writeFile(mine, "");

  assert.deepEqual(await shippedRecipes(root), ["demo"]);
  const pathOf = async (name: string) => (await findRecipe(name, root)).path;
  assert.equal(await pathOf("demo"), demo);
  await mkdir(join(root, "recipes", "more"));
  await writeFile(join(root, "recipes", "more", "one.yaml"), "");
  assert.deepEqual(await shippedRecipes(root), ["demo", "more/one"]);
  assert.equal(await pathOf("more/one"), join(root, "recipes", "more", "one.yaml"));
  assert.equal(await pathOf(demo), demo);
  assert.equal(await pathOf(mine), mine);

  const hinted = (hint: RegExp) => (error: unknown) =>
    error instanceof UserError && error.exitCode === 2 && hint.test(error.hint ?? "");
  // The folder of recipes is a path, but no recipe.
  await assert.rejects(
    findRecipe(join(root, "recipes"), root),
    hinted(/shipped recipes: demo, more/),
  );
  await assert.rejects(findRecipe("dmo", root), hinted(/did you mean --recipe demo\?/));
  await assert.rejects(findRecipe("recipes/demmo.yaml", root), hinted(/--recipe demo\?/));
  await assert.rejects(findRecipe("../mine.yml", root), UserError);
});
