// Whether a long run's memory grows: the demo with 2,000 steps, its resident memory read each second.

import { spawn } from "node:child_process";
import { once } from "node:events";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { medianOf } from "./processes.ts";

/** Compares the median of the run's second tenth, when all is loaded, with that of its last. Linux only. */
export async function measureGrowth(folder: string, threads: number) {
  const cli = new URL("../cli/main.ts", import.meta.url).pathname;
  const options = ["--recipe", "demo", "--steps", "2000", "--threads", String(threads)];
  const child = spawn(
    process.execPath,
    ["--import", "tsx", cli, "finetune", ...options, "--out", join(folder, "run")],
    { stdio: "ignore" },
  );
  const samples: number[] = [];
  const sampling = setInterval(() => samples.push(residentMb(child.pid!)), 1000);
  const [code] = (await once(child, "close")) as [number];
  clearInterval(sampling);
  if (code !== 0) throw new Error(`the run failed with exit code ${code}`);
  const tenth = Math.floor(samples.length / 10);
  const early = medianOf(samples.slice(tenth, 2 * tenth));
  const late = medianOf(samples.slice(-tenth));
  return { case: "growth", steps: 2000, earlyMb: early, lateMb: late, growth: late / early - 1 };
}

function residentMb(pid: number): number {
  const status = readFileSync(`/proc/${pid}/status`, "utf8");
  return Number(/VmRSS:\s*(\d+) kB/.exec(status)![1]) / 1024;
}
