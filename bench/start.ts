// From the command to its first step: loading the program, opening the model, building and compiling the graph.

import { medianOf, startTask } from "./processes.ts";

/** Medians over fresh processes; the first run of a step is the slowest, since it touches all memory for the first time. */
export async function measureStart(folder: string, rounds: number, threads: number) {
  const starts: number[] = [];
  const firstSteps: number[] = [];
  for (let round = 0; round <= rounds; round++) {
    const started = performance.now();
    const step = { kind: "step", recompute: "cheap", threads, batchSize: 1 } as const;
    const process = await startTask({ ...step, folder, context: 1024 });
    const ready = performance.now() - started;
    const firstStep = await process.run();
    await process.stop();
    if (round === 0) continue; // reads the files into the system's cache
    starts.push(ready);
    firstSteps.push(firstStep);
  }
  return { case: "start", untilFirstStepMs: medianOf(starts), firstStepMs: medianOf(firstSteps) };
}
