// The recipes that ship: each is valid, and the reference tells the truth about every key.
import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { test } from "node:test";
import { parse } from "yaml";
import { findRecipe, shippedRecipes } from "../src/options/load.ts";
import { loadRecipe } from "../src/options/load.ts";
import { recipeOptions } from "../src/options/schema.ts";

const root = join(import.meta.dirname, "..");

async function read(name: string): Promise<{ path: string; text: string }> {
  const path = await findRecipe(name, root);
  return { path, text: await readFile(path, "utf8") };
}

test("every shipped recipe is valid and shows its command", async (t) => {
  const names = await shippedRecipes(root);
  for (const name of names) {
    const file = await read(name);
    loadRecipe({ file });
    assert.match(file.text, /^# /, `${name} begins with what it shows`);
    assert.match(file.text, new RegExp(`^#   npx ssa finetune --recipe ${name}\\b`, "m"));
  }
  t.diagnostic(`${names.length} recipes checked`);
  for (const name of ["demo", "gpt2-wikitext2", "llama-wikitext2", "reference"])
    assert.ok(names.includes(name), `${name} is missing`);
});

test("the reference names every key once, in the schema's order, with its default", async () => {
  const { text } = await read("reference");
  const content = parse(text) as Record<string, unknown>;
  assert.deepEqual(
    Object.keys(content),
    recipeOptions.map(({ key }) => key),
  );
  const { base, data } = content as { base: string; data: string };
  assert.deepEqual(loadRecipe({ file: { path: "", text } }), loadRecipe({ flags: { base, data } }));
  for (const { key } of recipeOptions)
    assert.match(text, new RegExp(`^# [^\\n]+\\n${key}:`, "m"), `${key} is not explained`);
});

test("the reference mentions every choice of a key", async () => {
  const paragraphs = (await read("reference")).text.split("\n\n");
  for (const { key, choices = [] } of recipeOptions) {
    const paragraph = paragraphs.find((text) => new RegExp(`^${key}:`, "m").test(text)) ?? "";
    for (const choice of choices) assert.ok(paragraph.includes(choice), `${key}: ${choice}`);
  }
});
