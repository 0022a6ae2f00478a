// What trains: with which values, where they lie, and that a group that would train nothing is refused.

import assert from "node:assert/strict";
import { join } from "node:path";
import { test } from "node:test";
import { readFloats } from "../../src/files/safetensors.ts";
import { UserError } from "../../src/core/errors.ts";
import { openEngine } from "../../src/engines/index.ts";
import { add, input } from "../../src/graph/build.ts";
import { openModel } from "../../src/model/open.ts";
import { recipeSchema } from "../../src/options/schema.ts";
import type { TrainedTensor } from "../../src/train/adamw.ts";
import { augment, trainedTensors } from "../../src/train/groups.ts";

for (const [variant, unit] of [
  ["llama", 1],
  ["gemma2", 0],
  ["gpt_neo", 1],
] as const)
  test(`${variant}: random norms are such as change nothing`, async () => {
    const base = await openModel(join(import.meta.dirname, `../fixtures/${variant}`));
    const known = { base: "b", data: "d", tune: ["all"], init: "random" };
    const tensors = await trainedTensors(base, recipeSchema.parse(known), readFloats);
    const norms = tensors.filter(({ name }) => /(norm|ln_[12f])\.weight$/.test(name));
    assert.equal(norms.length, { llama: 5, gemma2: 9, gpt_neo: 5 }[variant]);
    for (const { name, values } of norms)
      assert.ok(
        values.every((x) => x === unit),
        name,
      );
  });

test("random matrices are normal; GPT-2's that add to the stream are smaller by 1 / √(2 layers)", async () => {
  const deviations = async (variant: string) => {
    const base = await openModel(join(import.meta.dirname, `../fixtures/${variant}`));
    const recipe = recipeSchema.parse({ base: "b", data: "d", tune: ["all"], init: "random" });
    const tensors = await trainedTensors(base, recipe, readFloats);
    const matrices = tensors.filter(({ name, shape }) => shape.length > 1 && name.includes(".0."));
    return matrices.map(({ name, values }) => {
      const square = values.reduce((sum, x) => sum + x * x, 0) / values.length;
      return [/\d\.(.*)\.weight$/.exec(name)![1]!, Math.sqrt(square) / 0.02] as const;
    });
  };
  for (const [name, ratio] of await deviations("gpt2")) {
    const expected = name.endsWith("c_proj") ? 0.5 : 1; // of two layers
    assert.ok(Math.abs(ratio - expected) < 0.1, `${name}: ${ratio}`);
  }
  for (const variant of ["gpt_neo", "llama"])
    for (const [name, ratio] of await deviations(variant))
      assert.ok(Math.abs(ratio - 1) < 0.2, `${name}: ${ratio}`);
});

const bare = { query: { logn: 16 }, value: {} };

for (const [what, changes, message] of [
  ["parts without parameters", { temperatures: bare }, /have no parameters: there is/],
  [
    "and nothing beside",
    { temperatures: bare, tune: ["temperatures", "biases"] },
    /nothing to train/,
  ],
  ["no bias", { tune: ["temperatures", "biases"] }, /tune names biases, but .* has none/],
] as const)
  test(`refuses ${what}`, async () => {
    const base = await openModel(join(import.meta.dirname, "../fixtures/llama"));
    const known = { base: "b", data: "d", maxAddedShare: 0.5 };
    const recipe = recipeSchema.parse({ ...known, ...changes });
    await assert.rejects(
      trainedTensors(augment(base, recipe), recipe, readFloats),
      (error: unknown) => error instanceof UserError && message.test(error.message),
    );
  });

test("what trains lies in shared memory, and each run reads what is there", async () => {
  const base = await openModel(join(import.meta.dirname, "../fixtures/llama"));
  const recipe = recipeSchema.parse({ base: "b", data: "d", tune: ["norms"] });
  const [{ name, shape, values }] = (await trainedTensors(base, recipe, readFloats)) as [
    TrainedTensor,
  ];
  assert.ok(values.buffer instanceof SharedArrayBuffer);
  const engine = await openEngine("cpu,cpu", { threads: 2 });
  const x = input(name, shape, "F32");
  const program = await engine.compile({ y: add(x, x) }, new Map());
  for (const scale of [1, 2, 3]) {
    values.fill(scale);
    const { y } = await program.run({ [name]: values });
    assert.deepEqual(y, new Float32Array(values.length).fill(2 * scale));
  }
  await engine.dispose();
});
