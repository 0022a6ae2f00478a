// Processes that are measured by turns: each waits while another runs, so that all meet the same machine.

import { type ChildProcess, spawn, spawnSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { createInterface } from "node:readline";
import { setTimeout } from "node:timers/promises";
import type { Model } from "../src/models/index.ts";
import type { Task } from "./tasks.ts";

interface Reply {
  /** Resident before it prepares anything. */
  readonly programMb?: number;
  readonly peer?: string;
  readonly ms?: number;
  readonly peakRssMb?: number;
}

export interface Measured {
  readonly medianMs: number;
  readonly peakRssMb: number;
}

export class Process {
  /** What it says of itself. */
  readonly greeting: Reply;
  readonly #child: ChildProcess;
  readonly #replies: AsyncIterator<string>;
  readonly #times: number[] = [];
  #peakRssMb = 0;

  private constructor(child: ChildProcess, replies: AsyncIterator<string>, greeting: Reply) {
    this.#child = child;
    this.#replies = replies;
    this.greeting = greeting;
  }

  /** Starts it and waits until it is prepared; null where it cannot. */
  static async start(
    command: string,
    args: readonly string[],
    env: Readonly<Record<string, string>> = {},
  ): Promise<Process | null> {
    const child = spawn(command, args, {
      // What a process that does not start says is worth seeing.
      stdio: ["pipe", "pipe", "inherit"],
      env: { ...process.env, ...env },
    });
    child.on("error", () => undefined);
    const replies = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
    const { value, done } = await replies.next();
    return done ? null : new Process(child, replies, JSON.parse(value) as Reply);
  }

  /** Runs the work once; a run that only warms up leaves no time. */
  async run({ isWarmUp = false } = {}): Promise<number> {
    this.#child.stdin!.write("\n");
    const { value, done } = await this.#replies.next();
    if (done) throw new Error("the process ended: out of memory?");
    const { ms, peakRssMb } = JSON.parse(value) as Reply;
    if (!isWarmUp) this.#times.push(ms!);
    this.#peakRssMb = peakRssMb!;
    return ms!;
  }

  measured(): Measured {
    return { medianMs: medianOf(this.#times), peakRssMb: this.#peakRssMb };
  }

  async stop(): Promise<void> {
    const closed = new Promise((resolve) => this.#child.once("close", resolve));
    this.#child.stdin!.end();
    await closed;
  }
}

/** A task of ours. */
export async function startTask(task: Task): Promise<Process> {
  const child = new URL("child.ts", import.meta.url).pathname;
  const started = await Process.start(process.execPath, [
    "--import",
    "tsx",
    child,
    JSON.stringify(task),
  ]);
  if (!started) throw new Error(`${task.kind} did not start`);
  return started;
}

const [MATRIX, PRODUCTS] = [2048, 16];

/** The machine's own large product. */
export function startMatmul(threads: number): Promise<Process> {
  return startTask({ kind: "matmul", size: MATRIX, count: PRODUCTS, threads });
}

/** Its operations per millisecond. */
export function matmulRate({ medianMs }: Measured): number {
  return (PRODUCTS * 2 * MATRIX ** 3) / medianMs;
}

/**
 * A Python with PyTorch, or null: SSA_BENCH_PYTHON, and then Debian's, which has it on a machine without a card; on one
 * with a card, whichever is first in PATH.
 */
function pythonWithTorch(isCuda: boolean): string | null {
  const others = ["/usr/bin/python3", "python3"];
  const known = [process.env["SSA_BENCH_PYTHON"], ...(isCuda ? others.toReversed() : others)];
  const hasTorch = (python?: string) =>
    python && spawnSync(python, ["-c", "import torch"], { stdio: "ignore" }).status === 0;
  return known.find(hasTorch) ?? null;
}

/** PyTorch's step of a GPT-2 or a Llama; null where there is no PyTorch. */
export function startPeer(
  { config }: Model,
  work: { batchSize: number; context: number; threads: number },
  options: readonly string[] = [],
): Promise<Process | null> {
  const script = new URL("peer.py", import.meta.url).pathname;
  const python = pythonWithTorch(options.includes("cuda"));
  if (python === null) {
    console.error("no PyTorch to compare with: SSA_BENCH_PYTHON names a Python that has it");
    return Promise.resolve(null);
  }
  return Process.start(python, [script, JSON.stringify({ ...config, ...work }), ...options], {
    ...(work.threads > 0 && { OMP_NUM_THREADS: String(work.threads) }),
    // Debian's OpenBLAS does not find its fast kernels by itself on newer processors.
    ...(hasAvx512() && { OPENBLAS_CORETYPE: "SKYLAKEX" }),
  });
}

function hasAvx512(): boolean {
  try {
    return readFileSync("/proc/cpuinfo", "utf8").includes(" avx512f ");
  } catch {
    return false;
  }
}

/** Until the threads of the process before have stopped spinning. */
const PAUSE_MS = 500;

/** Warms up, then runs all by turns. */
export async function measureByTurns(processes: readonly Process[], rounds: number): Promise<void> {
  for (let round = -2; round < rounds; round++)
    for (const process of processes) {
      await setTimeout(PAUSE_MS);
      await process.run({ isWarmUp: round < 0 });
    }
}

export function medianOf(values: readonly number[]): number {
  const sorted = values.toSorted((a, b) => a - b);
  const middle = sorted.length / 2;
  return (sorted[Math.ceil(middle) - 1]! + sorted[Math.floor(middle)]!) / 2;
}
