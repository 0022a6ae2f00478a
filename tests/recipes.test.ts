// The recipes that ship: each is valid, and the reference tells the truth about every key.
import assert from "node:assert/strict";
import { writeFile } from "node:fs/promises";
import { existsSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { parse } from "yaml";
import { findRecipe, shippedRecipes } from "../src/options/load.ts";
import { loadRecipe } from "../src/options/load.ts";
import { loadComparison } from "../src/options/comparison.ts";
import { trainRun } from "../src/run/fine-tune.ts";
import { prepareRun } from "../src/run/prepare.ts";
import { placesOf } from "../src/model/places.ts";
import { temporaryFolder } from "./helpers.ts";
import { recipeOptions } from "../src/options/schema.ts";

const root = join(import.meta.dirname, "..");

const read = (name: string) => findRecipe(name, root);

test("every shipped recipe is valid and shows its command", async (t) => {
  const names = await shippedRecipes(root);
  for (const name of names) {
    const file = await read(name);
    const isComparison = /^arms:/m.test(file.text);
    if (isComparison) loadComparison({ file });
    else loadRecipe({ file });
    const command = isComparison ? "compare" : "finetune";
    assert.match(file.text, /^# /, `${name} begins with what it shows`);
    assert.match(file.text, new RegExp(`^#   npx ssa ${command} --recipe ${name}\\b`, "m"));
  }
  t.diagnostic(`${names.length} recipes checked`);
  for (const name of ["demo", "gpt2-wikitext2", "llama-wikitext2", "reference", "results/paper"])
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

const questions = ["ship", "whale", "sea", "captain", "harpoon", "sail", "storm", "island"];
const dialogue = (word: string, i: number) => [
  { role: "user", content: `What of the ${word}, the ${i}th time?` },
  { role: "assistant", content: `The ${word} is in the book, and ${i} times of it is told.` },
];
const conversation = (word: string, i: number) => ({ messages: dialogue(word, i) });
const small: Readonly<Record<string, (word: string, i: number) => unknown>> = {
  "own-text": (word, i) => ({ text: `Of the ${word} it is told ${i} times in the book.` }),
  chat: conversation,
  "prompt-completion": (word, i) => ({ prompt: `The ${word}:`, completion: ` ${i} times.` }),
  qwen3: conversation,
  mistral: (word, i) => ({ instruction: `What of the ${word}?`, input: "", output: `${i} times.` }),
};
for (const [name, row] of Object.entries(small))
  test(`the recipe ${name} runs, with a tiny model in its model's place`, async (t) => {
    const folder = await temporaryFolder(t);
    const data = join(folder, "rows.jsonl");
    const rows = Array.from({ length: 64 }, (_, i) => row(questions[i % questions.length]!, i));
    await writeFile(data, rows.map((each) => JSON.stringify(each)).join("\n"));
    const values = {
      base: "tiny-gpt2",
      data,
      out: join(folder, "run"),
      holdOut: 0.2,
      device: "cpu",
      steps: 2,
      context: 128,
      precision: "fp32",
      reportWindows: 2,
      evalWindows: 1,
      ...(small[name] === conversation && { chatTemplate: "plain" }),
    };
    const recipe = loadRecipe({ file: await read(name), values });
    const run = await prepareRun(recipe, placesOf({ cacheDir: folder }));
    const counted = run.example()!.map(({ counts }) => counts);
    assert.equal(counted.includes(false), name !== "own-text");
    const { outcome, runDir } = await trainRun(run, {
      isResumed: false,
      onEvent: () => undefined,
      signal: t.signal,
    });
    assert.equal(outcome, "finished");
    const has = existsSync(join(runDir, "final", "chat_template.jinja"));
    assert.equal(has, !["own-text", "prompt-completion"].includes(name));
  });
