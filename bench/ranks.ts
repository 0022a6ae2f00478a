// Ranks of MPI: a step on two of one core each against one process of one core, and what that says of other networks.

import { spawnSync } from "node:child_process";
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { deserialize, serialize } from "node:v8";
import { fileURLToPath } from "node:url";
import { createRandom } from "../src/core/random.ts";
import { SHARED_VALUES } from "../src/engines/ranks/sums.ts";
import { readJson, readLines } from "../src/files/json.ts";
import { openHost } from "../src/train/host.ts";
import { GEOMETRIES, writeRandomModel } from "./models.ts";
import { medianOf } from "./processes.ts";

const TUNED = ["temperatures", "lora", "all"] as const;
const HOSTS = [2, 8, 64];
/** Bits per second, and seconds from one machine to another. */
const NETWORKS = {
  "100 Mbit/s": [1e8, 2e-4],
  "1 Gbit/s": [1e9, 1e-4],
  "10 Gbit/s": [1e10, 3e-5],
  "100 Gbit/s": [1e11, 5e-6],
} as const;

interface Measured {
  readonly values: number;
  readonly microBatchMs: number;
  /** What rank 0 does once a step, whatever the number of micro batches. */
  readonly hostMs: number;
  readonly handlingMs: number;
}

/**
 * Rank 0 sends every other rank the values and gets its gradients, one rank after another, while all compute:
 *     step = micro batch + host + (hosts - 1) · (2 · 32 · values / bits per second + 2 · latency + handling)
 * `handling` is what rank 0 takes to write as many values for a message, read as many from one, and add them. Many values
 * go in parts, as gradients, as sums and as what changed:
 *     step = micro batch + host + 3 · (32 · values / bits per second + latency) + handling
 */
function stepOf(of: Measured, hosts: number, bitsPerSecond: number, latency: number) {
  const once = 1e3 * ((32 * of.values) / bitsPerSecond + latency);
  const alone = of.microBatchMs + of.hostMs;
  if (of.values >= SHARED_VALUES) return alone + 3 * once + of.handlingMs;
  return alone + (hosts - 1) * (2 * once + of.handlingMs);
}

/** Steps of two micro batches, one each on two ranks. */
export async function measureRanks(folder: string, rounds: number, context: number) {
  const launcher = "mpirun.openmpi --allow-run-as-root --oversubscribe -np 2".split(" ");
  if (spawnSync(launcher[0]!, ["--version"]).status !== 0)
    return [{ case: "ranks", network: `${launcher[0]} is not here` }];
  await writeRandomModel(folder, GEOMETRIES["gpt2"]);
  const random = createRandom(1);
  for (const name of ["train.bin", "val.bin"]) {
    const tokens = Uint16Array.from({ length: 40 * context + 1 }, () => random.uniform() * 50257);
    await writeFile(join(folder, name), new Uint8Array(tokens.buffer));
  }
  const rows = [];
  for (const tuned of TUNED) {
    const one = await stepMs(folder, { tuned, rounds, context }, []);
    const two = await stepMs(folder, { tuned, rounds, context }, launcher);
    const { values } = one;
    const host = await hostMs(values);
    const microBatchMs = (one.ms - host) / 2;
    const measured = { values, microBatchMs, hostMs: host, handlingMs: await handlingMs(values) };
    const predictedMs = stepOf(measured, 2, Infinity, 0);
    rows.push({
      case: `${tuned}, ${values} values`,
      network: "shared memory",
      ...measured,
      oneProcessMs: one.ms,
      twoRanksMs: two.ms,
      predictedMs,
      predictedToMeasured: predictedMs / two.ms,
      "efficiency of 2": one.ms / 2 / two.ms,
    });
    for (const [network, [bitsPerSecond, latency]] of Object.entries(NETWORKS)) {
      /** Of so many hosts with a micro batch each, against one that computes them all. */
      const efficiency = (hosts: number) =>
        (microBatchMs + host / hosts) / stepOf(measured, hosts, bitsPerSecond, latency);
      const each = HOSTS.map((hosts) => [`efficiency of ${hosts}`, efficiency(hosts)]);
      rows.push({ case: tuned, network, ...(Object.fromEntries(each) as Record<string, number>) });
    }
    console.error(`${tuned}: ${[one, two].map(({ ms }) => Math.round(ms)).join(" and ")} ms`);
  }
  const columns = [...new Set(rows.flatMap((row) => Object.keys(row)))];
  const empty = Object.fromEntries(columns.map((name) => [name, null]));
  return rows.map((row) => ({ ...empty, ...row }));
}

/** The median of a run's steps but the first, which is slower. */
async function stepMs(
  folder: string,
  { tuned, rounds, context }: Readonly<{ tuned: string; rounds: number; context: number }>,
  launcher: readonly string[],
) {
  const out = join(folder, `${tuned}-${launcher.length}`);
  const main = fileURLToPath(new URL("../cli/main.ts", import.meta.url));
  const steps = ["--steps", String(rounds + 1), "--gradient-accumulation-steps", "2"];
  const scored = ["--report-windows", "2", "--eval-windows", "2", "--context", String(context)];
  const how = ["--base", folder, "--data", folder, "--tune", tuned, "--threads", "1"];
  const seldom = ["--device", "cpu", "--save-every", "1000000", "--out", out];
  const node = [process.execPath, "--import", import.meta.resolve("tsx"), main, "finetune"];
  const words = [...launcher, ...node, ...how, ...steps, ...scored, ...seldom];
  const { status, stderr } = spawnSync(words[0]!, words.slice(1), { encoding: "utf8" });
  if (status !== 0) throw new Error(stderr);
  const metrics = await readLines(join(out, "metrics.jsonl"));
  const times = metrics
    .filter(({ kind }) => kind === "step")
    .slice(1)
    .map((step) => (1e3 * Number(step["numTokens"])) / Number(step["tokensPerSecond"]));
  const { parameters } = (await readJson(join(out, "report.json"))) as {
    parameters: { trained: number };
  };
  return { ms: medianOf(times), values: parameters.trained };
}

/** What the optimizer does of a step for so many values, on one thread. */
async function hostMs(values: number): Promise<number> {
  const [value, gradient, mean, square] = [0, 1, 0, 0].map((x) => new Float32Array(values).fill(x));
  const tensor = { name: "x", shape: [values], values: value!, mean: mean!, square: square! };
  const host = openHost([{ ...tensor, weightDecay: 0, rate: "learningRate" }]);
  const options = { beta1: 0.9, beta2: 0.999, epsilon: 1e-8 };
  return median(async () => {
    for (const isFirst of [true, false]) await host.add(new Map([["x", gradient!]]), isFirst);
    await host.norm();
    await host.update({ step: 1, factor: 1, learningRates: [1e-3], options });
  });
}

function handlingMs(values: number): Promise<number> {
  const [sum, gradient] = [new Float32Array(values), new Float32Array(values).fill(1)];
  return median(() => {
    const message = serialize({ gradient });
    const { gradient: read } = deserialize(message) as { gradient: Float32Array };
    for (let i = 0; i < values; i++) sum[i]! += read[i]!;
  });
}

/** Milliseconds. */
async function median(work: () => void | Promise<void>): Promise<number> {
  const times: number[] = [];
  for (let round = 0; round < 5; round++) {
    const started = performance.now();
    await work();
    times.push(performance.now() - started);
  }
  return medianOf(times);
}
