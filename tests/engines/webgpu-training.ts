// Trains the fixture models' temperatures on WebGPU and on the CPU side by side and prints, as a line of JSON for each,
// how far the two are apart. A process of its own, so that the test can give it a Vulkan driver.

import { join } from "node:path";
import { type AugmentedModel, openModel } from "../../src/augmented/open.ts";
import type { Batch } from "../../src/data/batch.ts";
import { type Engine, openEngine } from "../../src/engines/index.ts";
import { adamW, type TrainedTensor } from "../../src/train/adamw.ts";
import { openTrainingStep } from "../../src/train/step.ts";

export interface Deviations {
  readonly name: string;
  /** Of each temperature's gradient, relative to its largest. */
  readonly gradients: readonly number[];
  /** Of the losses of ten steps, relative to the largest. */
  readonly losses: number;
  /** Of the CPU's loss, from the first step to the last. */
  readonly drop: number;
}

const window = { batchSize: 2, context: 12 };
const options = { beta1: 0.9, beta2: 0.999, epsilon: 1e-8 };

function batchOf({ model }: AugmentedModel): Batch {
  const numTargets = window.batchSize * window.context;
  const { vocabSize } = model.config;
  const tokens = (offset: number) =>
    Int32Array.from({ length: numTargets }, (_, i) => (i * i + 7 * (i + offset)) % vocabSize);
  return { ids: tokens(0), labels: tokens(1), numTargets };
}

/** Loss of each step, and all gradients of the first. */
async function train(engine: Engine, model: AugmentedModel, steps: number) {
  const names = [...model.temperatures!.values.keys()];
  const program = await openTrainingStep(engine, model, window, names);
  const tensors: readonly TrainedTensor[] = names.map((name) => {
    const values = Float32Array.from(model.temperatures!.values.get(name)!);
    const [mean, square] = [new Float32Array(values.length), new Float32Array(values.length)];
    return { name, shape: [values.length], values, mean, square, weightDecay: 0, group: "added" };
  });
  const values = Object.fromEntries(tensors.map((tensor) => [tensor.name, tensor.values]));
  const losses: number[] = [];
  const first = new Map<string, Float32Array>();
  for (let step = 1; step <= steps; step++) {
    const { nats, numTokens, gradients } = await program.run(batchOf(model), values);
    losses.push(nats / numTokens);
    for (const tensor of tensors) {
      const gradient = gradients.get(tensor.name)!;
      if (step === 1) first.set(tensor.name, Float32Array.from(gradient));
      adamW(tensor, gradient, options, { step, learningRate: 5e-2, factor: 1 / numTokens });
    }
  }
  await program.dispose();
  return { losses, first };
}

/** Largest difference over largest expected value. */
function deviation(actual: ArrayLike<number>, expected: ArrayLike<number>): number {
  let [difference, largest] = [0, 0];
  for (let i = 0; i < expected.length; i++) {
    difference = Math.max(difference, Math.abs(actual[i]! - expected[i]!));
    largest = Math.max(largest, Math.abs(expected[i]!));
  }
  return difference / largest;
}

const [cpu, webgpu] = [
  await openEngine("cpu", { threads: 1 }),
  await openEngine("webgpu", { threads: 1 }),
];
for (const variant of ["gpt2", "llama", "gpt_neox"])
  for (const spec of ["default", "full"]) {
    const folder = join(import.meta.dirname, "../fixtures", variant);
    const model = await openModel(folder, { adapter: join(folder, "ssa", spec) });
    const expected = await train(cpu, model, 10);
    const actual = await train(webgpu, model, 10);
    const found: Deviations = {
      name: `${variant} with ${spec} temperatures`,
      gradients: [...expected.first].map(([name, values]) =>
        deviation(actual.first.get(name)!, values),
      ),
      losses: deviation(actual.losses, expected.losses),
      drop: expected.losses[0]! - expected.losses.at(-1)!,
    };
    process.stdout.write(`${JSON.stringify(found)}\n`);
  }
await cpu.dispose();
await webgpu.dispose();
