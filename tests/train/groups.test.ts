// A group that would train nothing is refused, whatever the reason.

import assert from "node:assert/strict";
import { join } from "node:path";
import { test } from "node:test";
import { UserError } from "../../src/core/errors.ts";
import { onlyParts } from "../../src/insertions/parts.ts";
import { openModel } from "../../src/model/open.ts";
import { recipeSchema } from "../../src/options/schema.ts";
import { augment, trainedTensors } from "../../src/train/groups.ts";

for (const [variant, unit] of [
  ["llama", 1],
  ["gemma2", 0],
  ["gpt_neo", 1],
] as const)
  test(`${variant}: random norms are such as change nothing`, async () => {
    const base = await openModel(join(import.meta.dirname, `../fixtures/${variant}`));
    const known = { base: "b", data: "d", tune: ["all"], init: "random" };
    const tensors = await trainedTensors(base, recipeSchema.parse(known));
    const norms = tensors.filter(({ name }) => /(norm|ln_[12f])\.weight$/.test(name));
    assert.equal(norms.length, { llama: 5, gemma2: 9, gpt_neo: 5 }[variant]);
    for (const { name, values } of norms)
      assert.ok(
        values.every((x) => x === unit),
        name,
      );
  });

const off = { query: onlyParts(), key: onlyParts(), value: onlyParts() };

for (const [what, changes, message] of [
  ["no part", { temperatures: off }, /tune names temperatures, but .* has none/],
  ["no bias", { tune: ["temperatures", "biases"] }, /tune names biases, but .* has none/],
] as const)
  test(`refuses ${what}`, async () => {
    const base = await openModel(join(import.meta.dirname, "../fixtures/llama"));
    const known = { base: "b", data: "d", maxAddedShare: 0.5 };
    const recipe = recipeSchema.parse({ ...known, ...changes });
    await assert.rejects(
      trainedTensors(augment(base, recipe), recipe),
      (error: unknown) => error instanceof UserError && message.test(error.message),
    );
  });
