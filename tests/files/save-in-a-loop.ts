// A child process of run-folder.test.ts: a run that resumes, then saves snapshot after snapshot until it is killed.

import { join } from "node:path";
import {
  latestSnapshot,
  pruneSnapshots,
  removeLeftovers,
  saveSnapshot,
  truncateMetrics,
} from "../../src/files/run-folder.ts";
import { appendLine } from "../../src/files/json.ts";
import { lockRun } from "../../src/files/lock.ts";
import { runFiles } from "../../src/files/names.ts";
import type { TensorSource } from "../../src/files/safetensors.ts";

const runDir = process.argv[2]!;
const numFloats = Number(process.argv[3] ?? 20_000);

/** A tensor whose every value is the step. */
function filled(name: string, step: number): TensorSource {
  const values = new Float32Array(numFloats).fill(step);
  return { name, dtype: "F32", shape: [numFloats], data: new Uint8Array(values.buffer) };
}

await lockRun(runDir);
await removeLeftovers(runDir);
let step = (await latestSnapshot(runDir))?.step ?? 0;
await truncateMetrics(runDir, step);
for (;;) {
  step++;
  await appendLine(join(runDir, runFiles.metrics), { step });
  const tensors = {
    adapter: [filled("x.ssa.query.weight", step)],
    trained: [filled("x.weight", step)],
    optimizer: [filled("x.weight.m", step), filled("x.weight.v", step)],
  };
  await saveSnapshot(runDir, { step, tensors, state: { step } }, { adapterConfig: {} });
  await pruneSnapshots(runDir, 2);
  process.stdout.write(`${step}\n`);
}
