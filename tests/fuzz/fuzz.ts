// The driver: cases run in a process that is watched from here, so that one that never ends, or ends the process, is
// found and costs only itself.

import { fork } from "node:child_process";
import { existsSync } from "node:fs";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { type FaultKind, FAULTS, type Outcome, OUTCOMES } from "./contract.ts";
import type { Kind } from "./kinds/index.ts";

export interface FuzzOptions {
  readonly seed: number;
  /** Cases `first` to before `first + count`. */
  readonly first?: number;
  readonly count: number;
  readonly onFault?: (fault: FoundFault) => void;
  readonly onProgress?: (done: number) => void;
}

export interface FoundFault {
  readonly index: number;
  readonly what: FaultKind;
  readonly message: string;
}

export interface Tally
  extends Record<FaultKind, number>, Record<(typeof OUTCOMES)[number], number> {
  readonly seconds: number;
  readonly faults: readonly FoundFault[];
}

/** What the process is told. */
export interface Job {
  readonly kind: Kind;
  readonly seed: number;
  readonly first: number;
  readonly end: number;
  readonly folder: string;
  readonly isGuarded: boolean;
}

/** What it tells. */
export type Told =
  | { readonly begins: number }
  | { readonly outcome: Outcome }
  | { readonly fault: FoundFault };

/** Seconds that a case may take: a kill is a whole run of a program, twice, and parquet's guard waits for 5. */
const patience: Readonly<Partial<Record<Kind, number>>> = { kill: 300, parquet: 8, arrow: 20 };
const maxHeapMegabytes = 512;
// Of small files that are written and flushed thousands of times.
const ram = "/dev/shm";

export async function fuzz(kind: Kind, options: FuzzOptions): Promise<Tally> {
  const { seed, first = 0, count, onFault, onProgress } = options;
  const started = performance.now();
  const folder = await mkdtemp(join(existsSync(ram) ? ram : tmpdir(), `ssa-fuzz-${kind}-`));
  const counts: Record<FaultKind | Outcome, number> = {
    same: 0,
    other: 0,
    refused: 0,
    ...noFaults,
  };
  const faults: FoundFault[] = [];
  const tell = (told: Told) => {
    if ("outcome" in told) counts[told.outcome]++;
    if ("begins" in told) onProgress?.(told.begins - first);
    if (!("fault" in told)) return;
    counts[told.fault.what]++;
    faults.push(told.fault);
    onFault?.(told.fault);
  };
  const end = first + count;
  /** Runs cases until one ends the process or comes to no end itself; that one's fault. */
  const run = (from: number, to: number, isGuarded: boolean) =>
    watched({ kind, seed, first: from, end: to, folder, isGuarded }, tell);
  try {
    for (let at = first; at < end;) {
      const stop = await run(at, end, false);
      if (!stop) break;
      at = stop.index + 1;
      // What a parser does in that process is no fault where the program runs it in another.
      if (await run(stop.index, at, true)) tell({ fault: stop });
    }
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
  return { ...counts, faults, seconds: (performance.now() - started) / 1000 };
}

const noFaults = Object.fromEntries(FAULTS.map((what) => [what, 0])) as Record<FaultKind, number>;

/** Runs the cases of a job in a process; the fault of the one that it did not outlive. */
async function watched(job: Job, tell: (told: Told) => void): Promise<FoundFault | undefined> {
  const child = fork(fileURLToPath(new URL("cases.ts", import.meta.url)), [JSON.stringify(job)], {
    execArgv: ["--import", import.meta.resolve("tsx"), `--max-old-space-size=${maxHeapMegabytes}`],
    stdio: ["ignore", "inherit", "pipe", "ipc"],
  });
  let stderr = "";
  child.stderr!.on("data", (chunk) => (stderr = (stderr + String(chunk)).slice(-20_000)));
  return new Promise((resolve, reject) => {
    let [at, since] = [job.first - 1, performance.now()];
    let isLate = false;
    const seconds = patience[job.kind] ?? 30;
    const watch = setInterval(() => {
      isLate = performance.now() - since > 1000 * seconds;
      if (isLate) child.kill("SIGKILL");
    }, 500);
    child.on("message", (told: Told) => {
      if ("begins" in told) [at, since] = [told.begins, performance.now()];
      tell(told);
    });
    child.on("error", reject);
    child.on("close", (code, signal) => {
      clearInterval(watch);
      const fault = (what: FaultKind, message: string) => resolve({ index: at, what, message });
      if (at < job.first) reject(new Error(`${job.kind} cannot be prepared: ${stderr}`));
      else if (at >= job.end) resolve(undefined);
      else if (isLate) fault("hang", `no end in ${seconds} seconds`);
      else if (/out of memory/.test(stderr)) fault("memory", /FATAL ERROR.*/.exec(stderr)![0]);
      else if (code === 13 || code === 0) fault("hang", "it waits for what never comes");
      else fault("stack", `it ended with ${signal ?? code}: ${stderr}`);
    });
  });
}
