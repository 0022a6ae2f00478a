// The driver: cases run in a worker that is watched from here, so that one that never ends, or takes all memory, is
// found and costs only itself.

import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { startWorker } from "../../src/core/worker.ts";
import { type FaultKind, FAULTS, OUTCOMES } from "./contract.ts";
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

/** What the worker is told. */
export interface Job {
  readonly kind: Kind;
  readonly seed: number;
  readonly first: number;
  readonly end: number;
  readonly folder: string;
  readonly isGuarded: boolean;
  /** Int32: the case at work, then a count of each outcome. */
  readonly progress: SharedArrayBuffer;
}

/** How long a case may take, in seconds; a kill is a whole run of a program, twice. */
const patience = (kind: Kind) => (kind === "kill" ? 300 : 30);
const maxHeapMegabytes = 512;

export async function fuzz(kind: Kind, options: FuzzOptions): Promise<Tally> {
  const { seed, first = 0, count, onFault, onProgress } = options;
  const started = performance.now();
  const folder = await mkdtemp(join(tmpdir(), `ssa-fuzz-${kind}-`));
  const progress = new SharedArrayBuffer(4 * (1 + OUTCOMES.length));
  const counters = new Int32Array(progress);
  const faults: FoundFault[] = [];
  const found = (fault: FoundFault) => {
    faults.push(fault);
    onFault?.(fault);
  };
  const end = first + count;
  const tick = setInterval(() => onProgress?.(Atomics.load(counters, 0) - first), 5000);
  /** Runs cases until one comes to no end; gives the next index, and why it stopped. */
  const run = (from: number, to: number, isGuarded: boolean) =>
    watched({ kind, seed, first: from, end: to, folder, isGuarded, progress }, found);
  try {
    for (let at = first; at < end;) {
      const stop = await run(at, end, false);
      if (!stop) break;
      at = stop.index + 1;
      // What a parser does in this thread is no fault where the program ends it in another.
      const again = await run(stop.index, at, true);
      if (again) found(stop);
    }
  } finally {
    clearInterval(tick);
    await rm(folder, { recursive: true, force: true });
  }
  const of = (what: FaultKind) => faults.filter((fault) => fault.what === what).length;
  const outcomes = OUTCOMES.map((name, i) => [name, Atomics.load(counters, 1 + i)]);
  return {
    ...(Object.fromEntries([...outcomes, ...FAULTS.map((what) => [what, of(what)])]) as Tally),
    faults,
    seconds: (performance.now() - started) / 1000,
  };
}

/** Runs the cases of a job in a worker; the fault of the one that it did not outlive. */
async function watched(job: Job, onFault: (fault: FoundFault) => void) {
  const counters = new Int32Array(job.progress);
  Atomics.store(counters, 0, job.first);
  const worker = startWorker("./cases", import.meta.url, {
    workerData: job,
    resourceLimits: { maxOldGenerationSizeMb: maxHeapMegabytes },
  });
  return new Promise<FoundFault | undefined>((resolve, reject) => {
    let [last, since] = [-1, performance.now()];
    let stop: FoundFault | undefined;
    const at = () => Atomics.load(counters, 0);
    const watch = setInterval(() => {
      if (at() !== last) [last, since] = [at(), performance.now()];
      const seconds = patience(job.kind);
      if (performance.now() - since < 1000 * seconds) return;
      stop = { index: last, what: "hang", message: `no end in ${seconds} seconds` };
      void worker.terminate();
    }, 500);
    worker.on("message", onFault);
    worker.on("error", (error: NodeJS.ErrnoException) => {
      if (error.code === "ERR_WORKER_OUT_OF_MEMORY")
        stop = { index: at(), what: "memory", message: error.message };
      else stop = { index: at(), what: "stack", message: `unhandled: ${error.stack}` };
    });
    worker.on("exit", () => {
      clearInterval(watch);
      if (stop && job.end === job.first) reject(new Error(stop.message));
      else if (!stop && at() < job.end)
        resolve({ index: at(), what: "hang", message: "it waits for what never comes" });
      else resolve(stop);
    });
  });
}
