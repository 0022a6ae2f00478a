// A step on one card, ours against PyTorch's, one process after another: whoever computes has the card to itself, and what
// it takes of the memory is what is there in addition.

import { execFile } from "node:child_process";
import { promisify } from "node:util";
import { messageOf } from "../src/core/errors.ts";
import { openModel } from "../src/model/open.ts";
import { usedMb } from "./card.ts";
import type { GpuResult, GpuTask } from "./gpu-child.ts";
import { GEOMETRIES, writeRandomModel } from "./models.ts";
import { Process, startPeer } from "./processes.ts";

const CASES = [
  { geometry: "gpt2", dtype: "F32", batchSize: 1, context: 1024 },
  { geometry: "gpt2", dtype: "F32", batchSize: 8, context: 1024 },
  { geometry: "gpt2", dtype: "F32", batchSize: 16, context: 1024 },
  { geometry: "llama-3.2-1b", dtype: "BF16", batchSize: 4, context: 2048 },
] as const;
const OURS = [
  { device: "cuda", precision: "fp32" },
  { device: "cuda", precision: "bf16" },
  { device: "cuda", precision: "fp16" },
  { device: "webgpu", precision: "fp32" },
  { device: "webgpu", precision: "fp16" },
] as const;
/** Plain, and with all that it has. */
const PEERS = ["cuda", "cuda sdpa compile", "cuda bf16 sdpa", "cuda bf16 sdpa compile"];
/** A step may take minutes to compile; what takes longer is not measured. */
const LIMIT_MS = 180_000;

interface Found {
  readonly stepMs: number;
  readonly deviceMb: number | null;
  readonly nodes: number | null;
}

/** A row for each contender at each model and number of windows; one that fails says why. */
export async function measureGpu(folder: string, steps: number) {
  const rows = [];
  for (const { geometry, dtype, ...window } of CASES) {
    await writeRandomModel(folder, GEOMETRIES[geometry], dtype);
    const { model } = await openModel(folder);
    const contenders = [
      ...OURS.map((how) => ({
        name: `${geometry}, ssa ${how.device} ${how.precision}`,
        measure: () => ours({ folder, ...how, ...window, recompute: "nothing", steps }),
      })),
      ...PEERS.map((options) => ({
        name: `${geometry}, torch ${options}`,
        measure: () => {
          const all = { ...window, threads: 0 };
          return theirs(() => startPeer(model, all, options.split(" ")), steps);
        },
      })),
    ];
    for (const { name, measure } of contenders) {
      const found: Partial<Found> & { readonly failed?: string } = await measure().catch(
        (error: unknown) => ({ failed: messageOf(error).split("\n").at(-1)!.slice(0, 120) }),
      );
      const { stepMs = null, deviceMb = null, nodes = null, failed = null } = found;
      const tokensPerSecond = stepMs && (1e3 * window.batchSize * window.context) / stepMs;
      const tokens = `${window.batchSize} x ${window.context}`;
      rows.push({ case: name, tokens, stepMs, tokensPerSecond, deviceMb, nodes, failed });
      console.error(`${name}, ${tokens}: ${failed ?? `${stepMs} ms`}`);
    }
  }
  return rows;
}

async function ours(task: GpuTask): Promise<Found> {
  const child = new URL("gpu-child.ts", import.meta.url).pathname;
  const args = ["--import", "tsx", child, JSON.stringify(task)];
  const { stdout } = await promisify(execFile)(process.execPath, args, { timeout: LIMIT_MS });
  return JSON.parse(stdout) as GpuResult;
}

/** The first steps compile; of the others the median. */
async function theirs(start: () => Promise<Process | null>, steps: number): Promise<Found> {
  const before = usedMb();
  const peer = await start();
  if (!peer) throw new Error("PyTorch did not start");
  try {
    for (let step = 0; step < steps; step++) await peer.run({ isWarmUp: step < steps / 2 });
    const after = usedMb();
    const deviceMb = before === null || after === null ? null : after - before;
    return { stepMs: peer.measured().medianMs, deviceMb, nodes: null };
  } finally {
    await peer.stop();
  }
}
