// Steps of AdamW on the temperatures of a model folder on one device, and what they took; prints one line of JSON.
// A process of its own, since what a process takes of a card is known only by what is there before and after.

import type { Precision } from "../src/core/dtype.ts";
import { openEngine } from "../src/engines/index.ts";
import { type LoweringTarget, targets, toOnnx } from "../src/engines/onnx/onnx.ts";
import { fewerLaunches } from "../src/graph/launches.ts";
import { adamW } from "../src/train/adamw.ts";
import { buildTrainingGraph, openTrainingStep } from "../src/train/step.ts";
import { usedMb } from "./card.ts";
import { openWithTemperatures, randomIds } from "./models.ts";
import { numNodes } from "./onnx-nodes.ts";

export interface GpuTask {
  readonly folder: string;
  readonly device: string;
  readonly precision: Precision;
  readonly recompute: "nothing" | "cheap" | "blocks";
  readonly batchSize: number;
  readonly context: number;
  readonly steps: number;
}

export interface GpuResult extends GpuTask {
  readonly description: string;
  /** Mean nats per token of each step. */
  readonly losses: readonly number[];
  readonly compileSeconds: number;
  /** Of the step's model; null where no ONNX model is made of it. */
  readonly nodes: number | null;
  /** Median of the second half. */
  readonly stepMs: number;
  /** Of all processes on the first NVIDIA card, what came in addition; null without one. */
  readonly deviceMb: number | null;
}

const task = JSON.parse(process.argv[2]!) as GpuTask;
const { folder, device, precision, recompute, steps, ...shape } = task;
const before = usedMb();
const target = device in targets ? targets[device as keyof typeof targets] : undefined;
const engine = await openEngine(device, { threads: 0 });
const opened = await openWithTemperatures(folder);
const { values } = opened.temperatures!;
const started = performance.now();
const options = { precision, recompute };
const names = [...values.keys()];
const training = await openTrainingStep(engine, opened, shape, names, options);
const compileSeconds = (performance.now() - started) / 1000;

const ids = randomIds(shape.batchSize * shape.context + 1, opened.model.config.vocabSize);
const batch = { ids: ids.subarray(0, -1), labels: ids.subarray(1), numTargets: ids.length - 1 };
const tensors = [...values].map(([name, values]) => {
  const zeros = () => new Float32Array(values.length);
  const rest = { shape: [values.length], mean: zeros(), square: zeros(), weightDecay: 0 };
  return { name, values, ...rest, rate: "learningRate" as const };
});
const [losses, times]: [number[], number[]] = [[], []];
for (let step = 1; step <= steps; step++) {
  const begun = performance.now();
  const { nats, gradients } = await training.run(batch, Object.fromEntries(values));
  const update = { step, learningRate: 1e-2, factor: 1 / batch.numTargets };
  for (const tensor of tensors)
    adamW(tensor, gradients.get(tensor.name)!, { beta1: 0.9, beta2: 0.999, epsilon: 1e-8 }, update);
  times.push(performance.now() - begun);
  losses.push(nats / batch.numTargets);
}
const after = usedMb();
const late = times.slice(times.length >> 1).sort((a, b) => a - b);
const result: GpuResult = {
  ...task,
  description: engine.description,
  losses,
  compileSeconds,
  nodes: target ? nodesOf(target) : null,
  stepMs: late[late.length >> 1]!,
  deviceMb: before === null || after === null ? null : after - before,
};
console.log(JSON.stringify(result));
await training.dispose();
await engine.dispose();

function nodesOf(target: LoweringTarget): number {
  const graph = buildTrainingGraph(opened, shape, names, { ...options, tiling: target.tiling });
  const weight = { location: "", offset: 0, byteLength: 0 };
  return numNodes(
    toOnnx(target.fewLaunches ? fewerLaunches(graph, target) : graph, () => weight, target),
  );
}
