// Whether memory grows: over a long run, the demo with 2,000 steps, its resident memory read each second; and with the
// data, the peak of short runs on token files made here.

import { spawn } from "node:child_process";
import { once } from "node:events";
import { readFileSync } from "node:fs";
import { open, rm } from "node:fs/promises";
import { join } from "node:path";
import { createRandom } from "../src/core/random.ts";
import { medianOf } from "./processes.ts";

/** Compares the median of the run's second tenth, when all is loaded, with that of its last. Linux only. */
export async function measureGrowth(folder: string, threads: number) {
  const samples: number[] = [];
  const options = ["--recipe", "demo", "--steps", "2000"];
  await fineTune(join(folder, "run"), threads, options, (pid) => samples.push(residentMb(pid)));
  const tenth = Math.floor(samples.length / 10);
  const early = medianOf(samples.slice(tenth, 2 * tenth));
  const late = medianOf(samples.slice(-tenth));
  return { case: "growth", steps: 2000, earlyMb: early, lateMb: late, growth: late / early - 1 };
}

/** The peak of a run on 10^6 tokens, on as many as asked, and on 10^9, of a file with holes for tokens. */
export async function measureCorpus(folder: string, threads: number, most: number) {
  const rows = [];
  for (const [name, tokens, write] of [
    ["written", 1e6, writeTokens],
    ["written", most, writeTokens],
    ["sparse", 1e9, sparseTokens],
  ] as const) {
    const [data, run] = [join(folder, `${tokens}.npy`), join(folder, `run-${name}-${tokens}`)];
    await write(data, tokens);
    const windows = ["--context", "256", "--report-windows", "20", "--eval-windows", "10"];
    const options = ["--base", "tiny-gpt2", "--data", data, "--steps", "50", ...windows];
    const started = performance.now();
    await fineTune(run, threads, options);
    const seconds = (performance.now() - started) / 1000;
    const report = JSON.parse(readFileSync(join(run, "report.json"), "utf8")) as {
      readonly peakRssBytes: number;
    };
    rows.push({ case: `corpus, ${name}`, tokens, seconds, peakRssMb: report.peakRssBytes / 1e6 });
    await rm(data);
  }
  return rows;
}

/** What NumPy's files of one row of uint16 begin with, 128 bytes. */
function npyHeader(count: number): Uint8Array {
  const what = `{'descr': '<u2', 'fortran_order': False, 'shape': (${count},), }`;
  return Buffer.from(`\x93NUMPY\x01\0\x76\0${what.padEnd(117)}\n`, "latin1");
}

/** Ids that any model has, of two bytes each. */
async function writeTokens(path: string, count: number): Promise<void> {
  await using file = await open(path, "w");
  await file.writeFile(npyHeader(count));
  const random = createRandom(1);
  for (let done = 0; done < count; done += 1e6) {
    const length = Math.min(1e6, count - done);
    const ids = Uint16Array.from({ length }, () => random.uniform() * 200);
    await file.writeFile(new Uint8Array(ids.buffer));
  }
}

/** Zeros that take no room on a disk, and are read as any are. */
async function sparseTokens(path: string, count: number): Promise<void> {
  await using file = await open(path, "w");
  await file.writeFile(npyHeader(count));
  await file.truncate(128 + 2 * count);
}

/** `ssa finetune` to its end; told of its process each second. */
async function fineTune(
  out: string,
  threads: number,
  options: readonly string[],
  onSecond?: (pid: number) => void,
): Promise<void> {
  const cli = new URL("../cli/main.ts", import.meta.url).pathname;
  const all = [...options, "--threads", String(threads), "--out", out];
  const node = ["--import", "tsx", cli, "finetune", ...all];
  const child = spawn(process.execPath, node, { stdio: "ignore" });
  const sampling = setInterval(() => onSecond?.(child.pid!), 1000);
  const [code] = (await once(child, "close")) as [number];
  clearInterval(sampling);
  if (code !== 0) throw new Error(`the run failed with exit code ${code}`);
}

function residentMb(pid: number): number {
  const status = readFileSync(`/proc/${pid}/status`, "utf8");
  return Number(/VmRSS:\s*(\d+) kB/.exec(status)![1]) / 1024;
}
