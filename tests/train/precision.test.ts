// Half precision on the CPU provider, which computes it too (slowly): the loss of trained models stays within 1 % of
// F32's and their temperatures' gradients stay close; an overflow is met with a smaller loss scale.

import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { openModel } from "../../src/model/open.ts";
import type { OpenedModel } from "../../src/model/opened.ts";
import { UserError } from "../../src/core/errors.ts";
import type { Batch } from "../../src/data/windows.ts";
import { encode } from "../data/tiny-tokenizers.ts";
import { loadTokenizer } from "../../src/data/tokenizer/tokenizer.ts";
import { type Engine, openEngine } from "../../src/engines/index.ts";
import { createRandom } from "../../src/core/random.ts";
import { leaves, topologicalOrder } from "../../src/graph/tensor.ts";
import { withInitialValues } from "../../src/insertions/insertion.ts";
import { DEFAULT_TEMPERATURES, onlyParts } from "../../src/insertions/parts.ts";
import { temperatures } from "../../src/insertions/temperatures.ts";
import type { TrainedTensor } from "../../src/train/adamw.ts";
import { openHost } from "../../src/train/host.ts";
import { INITIAL_STATE, type StepMetrics, trainLoop } from "../../src/train/loop.ts";
import {
  LossScale,
  buildTrainingGraph,
  openTrainingStep,
  type TrainingStep,
} from "../../src/train/step.ts";
import { sharedData, skipWithout } from "../helpers.ts";

const parts = onlyParts("token", "position");
const spec = { ...DEFAULT_TEMPERATURES, query: parts, key: parts, value: parts };

let engine: Engine;
before(async () => (engine = await openEngine("cpu", { threads: 1 })));
after(() => engine.dispose());

/** A base with temperatures of zero. */
async function openAugmented(folder: string): Promise<OpenedModel> {
  const base = await openModel(folder);
  const insertion = temperatures.of(spec);
  return { ...base, temperatures: withInitialValues(insertion, base.model, createRandom(0)) };
}

/** The first window of a text. */
function batchOf(tokens: readonly number[], context: number): Batch {
  const ids = Int32Array.from(tokens.slice(0, context));
  const labels = Int32Array.from(tokens.slice(1, context + 1));
  return { ids, labels, numTargets: context };
}

async function stepOf(model: OpenedModel, batch: Batch, precision: "fp32" | "fp16") {
  const values = Object.fromEntries(model.temperatures!.values);
  const window = { batchSize: 1, context: batch.ids.length };
  const step = await openTrainingStep(engine, model, window, Object.keys(values), { precision });
  const { nats, numTokens, gradients } = await step.run(batch, values);
  await step.dispose();
  const copies = [...gradients].map(([name, values]) => [name, Float32Array.from(values)] as const);
  return { loss: nats / numTokens, gradients: new Map(copies) };
}

/** Of the angle between two vectors; 1 where they are parallel. */
function cosine(a: Float32Array, b: Float32Array): number {
  const dot = (x: Float32Array, y: Float32Array) => x.reduce((sum, v, i) => sum + v * y[i]!, 0);
  return dot(a, b) / Math.sqrt(dot(a, a) * dot(b, b));
}

const texts: Readonly<Record<string, () => Promise<readonly number[]>>> = {
  stories260k: async () => {
    const tokenizer = await loadTokenizer(sharedData("stories260k"));
    const text = await readFile(sharedData("tinystories", "five-stories.txt"), "utf8");
    return [...encode(tokenizer, text)];
  },
  slm4096: async () => {
    const folder = sharedData("slm4096");
    const text = await readFile(join(folder, "corpus.txt"), "utf8");
    const vocabulary = JSON.parse(await readFile(join(folder, "char_vocab.json"), "utf8")) as {
      readonly stoi: Readonly<Record<string, number>>;
    };
    return Array.from(text, (character) => vocabulary.stoi[character]!);
  },
};
for (const [name, tokensOf] of Object.entries(texts))
  test(
    `${name}: loss and gradients in half precision`,
    { skip: skipWithout(sharedData(name)) },
    async (t) => {
      const model = await openAugmented(sharedData(name));
      const batch = batchOf(await tokensOf(), 128);
      const [full, half] = [await stepOf(model, batch, "fp32"), await stepOf(model, batch, "fp16")];
      const change = Math.abs(half.loss / full.loss - 1);
      const angles = [...full.gradients].map(([tensor, gradient]) =>
        cosine(gradient, half.gradients.get(tensor)!),
      );
      t.diagnostic(`loss ${full.loss} and ${half.loss}, least cosine ${Math.min(...angles)}`);
      assert.ok(
        change > 0 && change < 0.01,
        `loss is ${full.loss}, in half precision ${half.loss}`,
      );
      assert.ok(Math.min(...angles) > 0.99, angles.join());
    },
  );

const fixture = new URL("../fixtures/llama", import.meta.url).pathname;
const window = { batchSize: 1, context: 8 };

test("what must be exact is in F32, the rest in half precision", async () => {
  const model = await openAugmented(fixture);
  const names = [...model.temperatures!.values.keys()];
  const full = buildTrainingGraph(model, window, names);
  assert.ok(topologicalOrder(Object.values(full)).every(({ dtype }) => dtype !== "F16"));
  assert.ok(!leaves(full, "Input").has("lossScale"));

  const half = buildTrainingGraph(model, window, names, { precision: "fp16" });
  assert.ok(leaves(half, "Input").has("lossScale"));
  assert.ok(Object.values(half).every(({ dtype }) => dtype === "F32"));
  const order = topologicalOrder(Object.values(half));
  const exact = ["Softmax", "LogSumExp", "RmsNorm", "RmsNormInvStd", "Tanh"];
  for (const { op, dtype } of order) if (exact.includes(op)) assert.equal(dtype, "F32", op);
  const products = order.filter(({ op }) => op === "MatMul");
  assert.ok(products.filter(({ dtype }) => dtype === "F16").length > products.length / 2);
});

test("a device without half precision refuses it", async () => {
  const model = await openAugmented(fixture);
  await assert.rejects(
    openTrainingStep({ ...engine, precisions: ["fp32"] }, model, window, [], { precision: "fp16" }),
    (error) => error instanceof UserError && /does not compute in fp16/.test(error.message),
  );
});

test("the loss scale is halved on overflow, to a limit, and doubled after many good steps", () => {
  const scale = new LossScale();
  const first = scale.state.value;
  assert.equal(scale.shouldRetry(false), true);
  assert.equal(scale.state.value, first / 2);
  for (let i = 0; i < 200; i++) assert.equal(scale.shouldRetry(true), false);
  assert.equal(scale.state.value, first);
  let retries = 0;
  while (scale.shouldRetry(false)) retries++;
  assert.ok(
    retries >= 10 && scale.state.value > 0 && scale.state.value < 1,
    `${retries} to ${scale.state.value}`,
  );
});

test("the loop repeats a step that overflowed, on the same batches", async () => {
  const seen: Batch[] = [];
  let batches = 0;
  const scale = new LossScale();
  const largest = scale.state.value / 4;
  const program: TrainingStep = {
    run: (batch) => {
      seen.push(batch);
      const gradient = scale.state.value > largest ? Infinity : 1;
      return Promise.resolve({
        nats: 1,
        numTokens: 1,
        gradients: new Map([["x", Float32Array.of(gradient)]]),
      });
    },
    lanes: 1,
    lossScale: scale,
    dispose: () => Promise.resolve(),
  };
  const zeros = () => new Float32Array(1);
  const tensor: TrainedTensor = {
    name: "x",
    shape: [1],
    values: zeros(),
    mean: zeros(),
    square: zeros(),
    weightDecay: 0,
    rate: "learningRate",
  };
  const metrics: StepMetrics[] = [];
  await trainLoop(
    program,
    [tensor],
    openHost([tensor]),
    {
      schedule: "constant",
      steps: 2,
      warmupSteps: 0,
      beta1: 0.9,
      beta2: 0.999,
      epsilon: 1e-8,
      gradientAccumulationSteps: 2,
      learningRate: 0.1,
      baseLearningRate: 0.1,
      loraLearningRate: 1e-3,
      minLearningRate: 0,
      maxGradNorm: 10,
      evalEvery: 10,
      saveEvery: 10,
      earlyStopping: "off",
    },
    {
      nextBatch: () => ({
        ids: Int32Array.of(batches),
        labels: Int32Array.of(batches++),
        numTargets: 1,
      }),
      onStep: (step) => void metrics.push(step),
      evaluate: () => Promise.resolve(1),
      save: () => Promise.resolve(),
      shouldStop: () => false,
    },
    INITIAL_STATE,
  );
  assert.deepEqual(
    seen.map(({ ids }) => ids[0]),
    [0, 1, 0, 1, 0, 1, 2, 3],
  );
  assert.deepEqual(
    metrics.map(({ lossNats, gradNorm, numTokens }) => [lossNats, gradNorm, numTokens]),
    [
      [1, 1, 2],
      [1, 1, 2],
    ],
  );
  assert.ok(Math.abs(tensor.values[0]! + 0.2) < 1e-6, `${tensor.values[0]}`);
});
