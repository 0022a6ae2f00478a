// The cost model against measurements: three sizes of GPT-2, each with windows of three lengths.

import { sessionBytes } from "../src/run/memory.ts";
import { buildTrainingGraph } from "../src/train/step.ts";
import { stepCost } from "./cost.ts";
import { GEOMETRIES, openWithTemperatures, weightBytes, writeRandomModel } from "./models.ts";
import { matmulRate, measureByTurns, startMatmul, startTask } from "./processes.ts";

const SIZES = ["gpt2-quarter", "gpt2", "gpt2-medium"] as const;
const LENGTHS = [256, 512, 1024];

/** Bytes per millisecond of a step's passes, fitted to one of the nine: GPT-2 with 1,024 tokens on the README's machine. */
const BANDWIDTH = 49e6;

/** Time and peak memory of a step, predicted and measured; the rate of products is measured beside each. */
export async function measureScaling(folder: string, rounds: number, threads: number) {
  const rows = [];
  for (const size of SIZES) {
    await writeRandomModel(folder, GEOMETRIES[size]);
    for (const context of LENGTHS)
      rows.push({ case: size, ...(await measureShape(folder, context, rounds, threads)) });
  }
  return rows;
}

async function measureShape(folder: string, context: number, rounds: number, threads: number) {
  const window = { batchSize: 1, context };
  const step = await startTask({ kind: "step", threads, folder, recompute: "cheap", ...window });
  const matmul = await startMatmul(threads);
  await measureByTurns([step, matmul], rounds);
  const [{ medianMs, peakRssMb }, rate] = [step.measured(), matmulRate(matmul.measured())];
  const programBytes = 1e6 * step.greeting.programMb!;
  for (const each of [step, matmul]) await each.stop();

  const augmented = await openWithTemperatures(folder);
  const { operations, bytes } = stepCost(augmented.model, window);
  const predictedMs = operations / rate + bytes / BANDWIDTH;
  const graph = buildTrainingGraph(augmented, window, [...augmented.temperatures!.values.keys()]);
  const predictedMb = (programBytes + weightBytes(augmented) + sessionBytes(graph)) / 1024 ** 2;
  return {
    tokens: context,
    gigaOperations: operations / 1e9,
    gigabytes: bytes / 1e9,
    matmulGflops: rate / 1e6,
    predictedMs,
    stepMs: medianMs,
    predictedToMeasured: predictedMs / medianMs,
    predictedPeakMb: predictedMb,
    peakRssMb,
    peakPredictedToMeasured: predictedMb / peakRssMb,
  };
}
