// What is measured, each in a process of its own (child.ts): prepared once, run many times.

import { boundWeights, buildForward, natsOf } from "../src/model/graph.ts";
import { quantizationOf } from "../src/model/blocks.ts";
import { withBlocks } from "../src/model/quantize.ts";
import { createRandom } from "../src/core/random.ts";
import { toInt64 } from "../src/core/dtype.ts";
import { openEngine } from "../src/engines/index.ts";
import { targets, toOnnx } from "../src/engines/onnx/onnx.ts";
import { input, matMul, reduceSum } from "../src/graph/build.ts";
import { simplify } from "../src/graph/passes.ts";
import type { Tensor } from "../src/graph/tensor.ts";
import { adamW } from "../src/train/adamw.ts";
import { openTrainingStep } from "../src/train/step.ts";
import { openWithTemperatures, randomIds } from "./models.ts";

export type Task =
  | {
      readonly kind: "matmul";
      readonly threads: number;
      readonly size: number;
      /** Products of one run, each of the one before: a single one is too short to be timed. */
      readonly count: number;
    }
  | {
      readonly kind: "eval" | "step";
      readonly threads: number;
      readonly folder: string;
      readonly batchSize: number;
      readonly context: number;
      readonly recompute: "nothing" | "cheap" | "blocks";
      /** Of the base's matrices, kept in the folder. */
      readonly quantize?: "q4" | "q8";
    };

/** Does the work once. */
export type Run = () => Promise<void>;

export function prepare(task: Task): Promise<Run> {
  if (task.kind === "matmul") return matmul(task);
  return task.kind === "eval" ? evaluation(task) : step(task);
}

type MatmulTask = Extract<Task, { kind: "matmul" }>;

/** The machine's own rate: products of square matrices, straight through ONNX Runtime. */
async function matmul({ threads, size, count }: MatmulTask): Promise<Run> {
  const runtime = await import("onnxruntime-node");
  const [a, b] = [input("a", [size, size], "F32"), input("b", [size, size], "F32")];
  const product = Array.from({ length: count }).reduce<Tensor>((y) => matMul(y, b), a);
  // Of the sum alone, since what a run returns is copied.
  const outputs = { sum: reduceSum(product, [0, 1]) };
  const model = toOnnx(outputs, () => new Uint8Array(), targets.cpu);
  const session = await runtime.InferenceSession.create(model, { intraOpNumThreads: threads });
  const matrix = new runtime.Tensor("float32", squareOf(size), [size, size]);
  return async () => {
    await session.run({ a: matrix, b: matrix });
  };
}

/**
 * Independent values of variance 1 / size: those of a product of two such matrices have the same variance, so that a chain
 * neither overflows nor falls to denormal numbers, with which processors are many times slower.
 */
export function squareOf(size: number): Float32Array {
  const random = createRandom(0);
  const limit = Math.sqrt(3 / size);
  return Float32Array.from({ length: size * size }, () => (2 * random.uniform() - 1) * limit);
}

type ModelTask = Extract<Task, { kind: "eval" | "step" }>;

async function evaluation({ threads, folder, batchSize, context }: ModelTask): Promise<Run> {
  const engine = await openEngine("cpu", { threads });
  const opened = await openWithTemperatures(folder);
  const nats = natsOf(buildForward(opened, { batchSize, context }));
  const program = await engine.compile(simplify({ nats }), boundWeights(opened));
  const size = batchSize * context;
  const ids = toInt64(randomIds(size, opened.model.config.vocabSize));
  const feeds = { ids, labels: ids, weights: new Float32Array(size).fill(1) };
  return async () => {
    await program.run(feeds);
  };
}

/** Forward, backward and AdamW on the temperatures, as the training loop does them. */
async function step(task: ModelTask): Promise<Run> {
  const { threads, folder, batchSize, context, recompute, quantize = "none" } = task;
  const engine = await openEngine("cpu", { threads });
  const spec = quantizationOf({ quantize });
  const opened = await withBlocks(await openWithTemperatures(folder), spec, { cacheDir: folder });
  const tensors = [...opened.temperatures!.values].map(([name, values]) => ({
    name,
    shape: [values.length],
    values,
    mean: new Float32Array(values.length),
    square: new Float32Array(values.length),
    weightDecay: 0,
    rate: "learningRate" as const,
  }));
  const names = tensors.map(({ name }) => name);
  const window = { batchSize, context };
  const training = await openTrainingStep(engine, opened, window, names, { recompute });
  const ids = randomIds(batchSize * context, opened.model.config.vocabSize);
  const batch = { ids, labels: ids, numTargets: ids.length };
  const values = Object.fromEntries(opened.temperatures!.values);
  const options = { beta1: 0.9, beta2: 0.999, epsilon: 1e-8 };
  let count = 0;
  return async () => {
    const { gradients } = await training.run(batch, values);
    const update = { step: ++count, learningRate: 1e-3, factor: 1 / batch.numTargets };
    for (const tensor of tensors) adamW(tensor, gradients.get(tensor.name)!, options, update);
  };
}
