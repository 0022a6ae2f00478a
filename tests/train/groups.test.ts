// A group that would train nothing is refused, whatever the reason.

import assert from "node:assert/strict";
import { join } from "node:path";
import { test } from "node:test";
import { UserError } from "../../src/core/errors.ts";
import { onlyParts } from "../../src/insertions/parts.ts";
import { openModel } from "../../src/model/open.ts";
import { recipeSchema } from "../../src/options/schema.ts";
import { augment, trainedTensors } from "../../src/train/groups.ts";

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
