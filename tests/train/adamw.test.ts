// AdamW and a whole training loop against torch.optim.AdamW.

import assert from "node:assert/strict";
import { join } from "node:path";
import { test } from "node:test";
import { createRandom } from "../../src/core/random.ts";
import { openModel } from "../../src/model/open.ts";
import { openEngine } from "../../src/engines/index.ts";
import { openSafetensors, readBytes, readFloats } from "../../src/files/safetensors.ts";
import { recipeSchema } from "../../src/options/schema.ts";
import { augment, trainedTensors } from "../../src/train/groups.ts";
import { adamW, clipFactor, globalNorm, type TrainedTensor } from "../../src/train/adamw.ts";
import { startHelper } from "../../src/train/helper.ts";
import { openHost } from "../../src/train/host.ts";
import { INITIAL_STATE, trainLoop } from "../../src/train/loop.ts";
import { openTrainingStep } from "../../src/train/step.ts";
import { allClose } from "../helpers.ts";

const fixtures = new URL("../fixtures/", import.meta.url).pathname;

async function floatsOf(path: string) {
  const { tensors } = await openSafetensors(join(fixtures, path));
  return {
    names: [...tensors.keys()],
    of: (name: string) => readFloats(tensors.get(name)!),
    shapeOf: (name: string) => tensors.get(name)!.shape,
  };
}

test("20 updates with decay, clipping and a varying rate follow PyTorch's", async () => {
  const file = await floatsOf("adamw/update.safetensors");
  const rates = await file.of("learning_rate");
  const tensors = await Promise.all(
    ["decayed", "plain"].map(async (name) => {
      const values = await file.of(`initial.${name}`);
      const [mean, square] = [new Float32Array(values.length), new Float32Array(values.length)];
      const weightDecay = name === "decayed" ? 0.01 : 0;
      return {
        name,
        shape: [values.length],
        values,
        mean,
        square,
        weightDecay,
        rate: "learningRate" as const,
      };
    }),
  );
  const gradients = await Promise.all(tensors.map(({ name }) => file.of(`grad.${name}`)));
  const options = { beta1: 0.9, beta2: 0.95, epsilon: 1e-8 };
  for (const [i, learningRate] of rates.entries()) {
    const rows = tensors.map(({ values: { length } }, t) =>
      gradients[t]!.subarray(i * length, (i + 1) * length),
    );
    const factor = clipFactor(globalNorm(rows), 1);
    tensors.forEach((tensor, t) =>
      adamW(tensor, rows[t]!, options, { step: i + 1, learningRate, factor }),
    );
  }
  for (const { name, values } of tensors)
    allClose(values, await file.of(`final.${name}`), { atol: 1e-6, rtol: 1e-5 });
});

test("20 steps on a fixed batch follow PyTorch's losses, norms and temperatures", async () => {
  const file = await floatsOf("adamw/trajectory.safetensors");
  const expected = await openSafetensors(join(fixtures, "gpt2/expected.safetensors"));
  const stored = new BigInt64Array((await readBytes(expected.tensors.get("input_ids")!)).buffer);
  const [batchSize, context] = expected.tensors.get("input_ids")!.shape as [number, number];
  const ids = Int32Array.from(stored, Number);
  const labels = ids.map((_, i) => ((i + 1) % context === 0 ? -1 : ids[i + 1]!));
  const recipe = recipeSchema.parse({
    base: "gpt2",
    data: "none",
    maxAddedShare: 0.5,
    learningRate: 1e-2, // the fixture's
  });
  const opened = augment(await openModel(join(fixtures, "gpt2")), recipe);
  const tensors = await trainedTensors(opened, recipe, readFloats);
  const engine = await openEngine("cpu", { threads: 1 });
  const names = tensors.map(({ name }) => name);
  const program = await openTrainingStep(engine, opened, { batchSize, context }, names);
  const losses: number[] = [];
  const norms: number[] = [];
  await trainLoop(
    program,
    tensors,
    openHost(tensors),
    {
      ...recipe,
      steps: 20,
      schedule: "constant",
      warmupSteps: 0,
      gradientAccumulationSteps: 1,
      earlyStopping: "off",
    },
    {
      nextBatch: () => ({ ids, labels, numTargets: batchSize * (context - 1) }),
      onStep: ({ lossNats, gradNorm }) => {
        losses.push(lossNats);
        norms.push(gradNorm);
      },
      evaluate: () => Promise.resolve(0),
      save: () => Promise.resolve(),
      shouldStop: () => false,
    },
    INITIAL_STATE,
  );
  await program.dispose();
  await engine.dispose();
  allClose(losses, await file.of("loss"), { rtol: 1e-5 });
  allClose(norms, await file.of("grad_norm"), { rtol: 1e-4 });
  assert.equal(tensors.length, file.names.filter((name) => name.startsWith("final.")).length);
  for (const { name, values } of tensors)
    allClose(values, await file.of(`final.${name}`), { atol: 1e-4 });
});

test("threads that share the work give the bits of one", async (t) => {
  const inShared = (values: Float32Array) => {
    const copy = new Float32Array(new SharedArrayBuffer(values.byteLength));
    copy.set(values);
    return copy;
  };
  const random = createRandom(3);
  const sizes = [3, 2 ** 22 + 5, 1000, 2 ** 20];
  const normal = (length: number) => Float32Array.from({ length }, () => random.normal());
  const initial = sizes.map(normal);
  const gradients = [0, 1].map(() => sizes.map((size) => inShared(normal(size))));
  const options = { beta1: 0.9, beta2: 0.95, epsilon: 1e-8 };
  const zeros = (length: number) => inShared(new Float32Array(length));
  const trained = async (threads: number) => {
    const tensors = sizes.map((size, i): TrainedTensor => ({
      name: `x${i}`,
      shape: [size],
      values: inShared(initial[i]!),
      mean: zeros(size),
      square: zeros(size),
      weightDecay: 0.1,
      rate: "learningRate",
    }));
    const host = openHost(tensors, { threads, start: startHelper });
    t.after(host.close);
    const norms: number[] = [];
    for (const step of [1, 2]) {
      for (const [i, each] of gradients.entries())
        await host.add(new Map(each.map((gradient, k) => [`x${k}`, gradient])), i === 0);
      norms.push(await host.norm());
      const learningRates = sizes.map((_, i) => 1e-2 * (i + 1));
      await host.update({ step, factor: 0.5, learningRates, options });
    }
    return { norms, tensors };
  };
  const [one, three] = [await trained(1), await trained(3)];
  assert.deepEqual(three, one);
  const sums = sizes.map((_, i) => gradients[0]![i]!.map((x, k) => x + gradients[1]![i]![k]!));
  assert.ok(Math.abs(one.norms[0]! / globalNorm(sums) - 1) < 1e-9);
  for (const [i, expected] of initial.entries()) {
    const [mean, square] = [zeros(expected.length), zeros(expected.length)];
    const plain = { ...one.tensors[i]!, values: expected.slice(), mean, square };
    for (const step of [1, 2])
      adamW(plain, sums[i]!, options, { step, learningRate: 1e-2 * (i + 1), factor: 0.5 });
    assert.deepEqual(one.tensors[i]!.values, plain.values);
  }
});
