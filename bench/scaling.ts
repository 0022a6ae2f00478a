// The cost model against measurements: three sizes of GPT-2, each with windows of three lengths.

import { ENGINE_BYTES, estimate } from "../src/engines/onnxruntime/estimate.ts";
import { buildTrainingGraph } from "../src/train/step.ts";
import type { BatchShape } from "../src/data/windows.ts";
import type { OpenedModel } from "../src/model/opened.ts";
import { stepCost } from "./cost.ts";
import { GEOMETRIES, openWithTemperatures, weightBytes, writeRandomModel } from "./models.ts";
import { matmulRate, measureByTurns, startMatmul, startTask } from "./processes.ts";

const SIZES = ["gpt2-quarter", "gpt2", "gpt2-medium"] as const;
const LENGTHS = [256, 512, 1024];

/** The one of the nine whose time gives the bandwidth of a step's passes; the others are predicted. */
const FITTED = { size: "gpt2", context: 1024 };

/** Time and peak memory of a step, predicted and measured; the rate of products is measured beside each. */
export async function measureScaling(folder: string, rounds: number, threads: number) {
  const measured = [];
  for (const size of SIZES) {
    await writeRandomModel(folder, GEOMETRIES[size]);
    for (const context of LENGTHS)
      measured.push({ size, context, ...(await measureShape(folder, context, rounds, threads)) });
  }
  const { cost, rate, stepMs } = measured.find(
    ({ size, context }) => size === FITTED.size && context === FITTED.context,
  )!;
  const bandwidth = cost.bytes / (stepMs - cost.operations / rate);
  return measured.map(({ size, context, cost, rate, stepMs, ...memory }) => {
    const predictedMs = cost.operations / rate + cost.bytes / bandwidth;
    return {
      case: size,
      tokens: context,
      gigaOperations: cost.operations / 1e9,
      gigabytes: cost.bytes / 1e9,
      matmulGflops: rate / 1e6,
      passesGbPerSecond: bandwidth / 1e6,
      predictedMs,
      stepMs,
      predictedToMeasured: predictedMs / stepMs,
      ...memory,
      peakPredictedToMeasured: memory.predictedPeakMb / memory.peakRssMb,
    };
  });
}

async function measureShape(folder: string, context: number, rounds: number, threads: number) {
  const window = { batchSize: 1, context };
  const step = await startTask({ kind: "step", threads, folder, recompute: "cheap", ...window });
  const matmul = await startMatmul(threads);
  await measureByTurns([step, matmul], rounds);
  const [{ medianMs: stepMs, peakRssMb }, product] = [step.measured(), matmul.measured()];
  const programBytes = 1e6 * step.greeting.programMb!;
  for (const each of [step, matmul]) await each.stop();

  const opened = await openWithTemperatures(folder);
  const predictedPeakMb = predictedMb(opened, window, "cheap", programBytes);
  const cost = stepCost(opened.model, window);
  return { cost, rate: matmulRate(product), stepMs, predictedPeakMb, peakRssMb };
}

/** What a step of the temperatures takes, by the same estimate as a run's plan. */
export function predictedMb(
  opened: OpenedModel,
  window: BatchShape,
  recompute: "cheap" | "blocks",
  programBytes: number,
): number {
  const names = [...opened.temperatures!.values.keys()];
  const { host } = estimate(buildTrainingGraph(opened, window, names, { recompute }), "cpu");
  return (programBytes + ENGINE_BYTES + weightBytes(opened) + host) / 1024 ** 2;
}
