// Documents side by side in a row are to a model what each is alone: their nats, and the gradient of these for every
// weight and temperature, in every family and on both engines. That a leak would show is shown by making one.

import assert from "node:assert/strict";
import { existsSync, readdirSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { createRandom } from "../../src/core/random.ts";
import type { TokenizedText } from "../../src/data/document.ts";
import { trainingSet } from "../../src/data/training.ts";
import { trainingBatches } from "../data/one-source.ts";
import type { Batch } from "../../src/data/windows.ts";
import { type Engine, openEngine } from "../../src/engines/index.ts";
import { readFloats } from "../../src/files/safetensors.ts";
import { openModel } from "../../src/model/open.ts";
import { largeTiles } from "../../src/nn/tiling.ts";
import { openTrainingStep, type TrainingOptions } from "../../src/train/step.ts";
import { allClose } from "../helpers.ts";

const fixtures = new URL("../fixtures/", import.meta.url).pathname;
const families = readdirSync(fixtures).filter((name) =>
  existsSync(join(fixtures, name, "config.json")),
);

/** Documents of these lengths, of whose tokens some are no targets. */
function documents(lengths: readonly number[], vocabSize: number): TokenizedText[] {
  const random = createRandom(7);
  return lengths.map((length) => ({
    tokens: Uint16Array.from({ length }, () => random.uniform() * vocabSize),
    isTarget: Uint8Array.from({ length }, (_, i) => (i % 5 === 2 ? 0 : 1)),
  }));
}

const context = 16;

/** A fixture, with the temperatures that are named behind a slash, or the default ones where it has them. */
async function open(name: string) {
  const [family, spec = "default"] = name.split("/") as [string, string?];
  const folder = join(fixtures, family);
  const adapter = join(folder, "ssa", spec);
  const opened = await openModel(folder, existsSync(adapter) ? { adapter } : {});
  const temperatures = opened.temperatures?.values ?? new Map<string, Float32Array>();
  const stored = [...opened.weights].map(
    async ([name, info]) => [name, await readFloats(info)] as const,
  );
  const values = Object.fromEntries([...(await Promise.all(stored)), ...temperatures]);
  // The last is longer than the context: it is cut, and each part stands alone.
  const texts = documents([7, 3, 12, 5, 9, 2, 40], opened.model.config.vocabSize);
  const set = trainingSet(texts, { packing: "auto", context, endOfText: 1, prefix: [] });
  assert.equal(set.facts.packing, "documents");
  assert.ok(set.facts.rows < set.windows.length);
  return { opened, values, set };
}

type Opened = Awaited<ReturnType<typeof open>>;

/** Summed nats and gradients of a batch. */
async function learn(
  engine: Engine,
  { opened, values }: Pick<Opened, "opened" | "values">,
  batch: Batch,
  options: TrainingOptions = {},
) {
  const isPacked = batch.positions !== undefined;
  const shape = { batchSize: batch.ids.length / context, context, isPacked };
  const length = isPacked ? shape : { ...shape, batchSize: 1, context: batch.ids.length };
  const step = await openTrainingStep(engine, opened, length, Object.keys(values), options);
  const { nats, gradients } = await step.run(batch, values);
  const copies = [...gradients].map(([name, gradient]) => [name, gradient.slice()] as const);
  await step.dispose();
  return { nats, gradients: new Map(copies) };
}

/**
 * Each window by itself, as long as it is; behind it padding where the model's frequencies follow from the length of what
 * is computed at a time, which is the context's then.
 */
async function learnAlone(engine: Engine, { opened, values, set }: Opened) {
  let nats = 0;
  const sums = new Map(
    Object.entries(values).map(([name, { length }]) => [name, new Float64Array(length)]),
  );
  const isSteady = opened.model.maxCached >= context;
  for (const { start, length } of set.windows) {
    const tokens = Int32Array.from(set.stream.tokens.subarray(start, start + length));
    const isTarget = set.stream.isTarget!.subarray(start, start + length);
    const size = isSteady ? length - 1 : context;
    const ids = Int32Array.from({ length: size }, (_, i) => (i < length - 1 ? tokens[i]! : 0));
    const labels = ids.map((_, i) => (isTarget[i + 1] ? tokens[i + 1]! : -1));
    const batch = { ids, labels, numTargets: 0 };
    const alone = await learn(engine, { opened, values }, batch);
    nats += alone.nats;
    for (const [name, gradient] of alone.gradients)
      gradient.forEach((g, i) => (sums.get(name)![i]! += g));
  }
  return { nats, gradients: sums };
}

/** The greatest difference of any gradient, as a share of its tensor's greatest element; one that is 0 by mathematics is not measured by its rounding. */
function furthest(
  actual: ReadonlyMap<string, ArrayLike<number>>,
  expected: ReadonlyMap<string, ArrayLike<number>>,
): number {
  let worst = 0;
  const largest = (values: ArrayLike<number>) => Math.max(...Array.from(values, Math.abs));
  const floor = 2e-3 * Math.max(...Array.from(expected.values(), largest));
  for (const [name, truth] of expected) {
    const values = Array.from(truth);
    const scale = Math.max(largest(values), floor);
    const found = actual.get(name)!;
    for (const [i, value] of values.entries())
      worst = Math.max(worst, Math.abs(found[i]! - value) / scale);
  }
  return worst;
}

const architectures = ["gpt2", "llama", "gpt_neox", "mistral", "qwen2", "qwen3"];

for (const [device, names] of [
  ["cpu", [...families, "gpt2/own", "gpt2/exp-exp", "mistral/ssmax", "mistral/logn"]],
  ["tfjs:cpu", architectures],
] as const)
  for (const family of names)
    test(`${family} on ${device}: packed documents are as each alone, and a leak shows`, async (t) => {
      const engine = await openEngine(device, { threads: 1 });
      t.after(() => engine.dispose());
      const all = await open(family);
      const cursor = { seed: 3, epoch: 0, index: 0 };
      const batch = trainingBatches(all.set, cursor).next(all.set.facts.rows);
      const alone = await learnAlone(engine, all);
      const packed = await learn(engine, all, batch);
      allClose([packed.nats], [alone.nats], { rtol: 1e-6 });
      const difference = furthest(packed.gradients, alone.gradients);
      t.diagnostic(`nats ${packed.nats - alone.nats}, gradients ${difference}`);
      assert.ok(difference < 2e-5, `gradients differ by ${difference}`);

      // As GPUs want graphs to be cut, and with whole blocks computed again.
      const others = { tiling: largeTiles, recompute: "blocks" } as const;
      const otherwise = await learn(engine, all, batch, others);
      allClose([otherwise.nats], [alone.nats], { rtol: 1e-6 });
      assert.ok(furthest(otherwise.gradients, alone.gradients) < 2e-5);

      // Each row as one document.
      const leaking = { ...batch, positions: batch.positions!.map((_, i) => i % context) };
      const leaked = await learn(engine, all, leaking);
      assert.ok(Math.abs(leaked.nats - alone.nats) > 1e-4 * alone.nats, "nats of a leak");
      assert.ok(furthest(leaked.gradients, alone.gradients) > 1e-2, "gradients of a leak");
    });
