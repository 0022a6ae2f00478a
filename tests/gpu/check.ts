// What tests/gpu/check.sh runs: each stage in processes of its own and with a limit of time, so that one that fails or
// hangs takes nothing with it. Prints a table; exits 1 where a stage failed on a device that is there.

import { execFileSync, spawn } from "node:child_process";
import { copyFileSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import type { GpuResult, GpuTask } from "../../bench/gpu-child.ts";
import { GEOMETRIES, writeRandomModel } from "../../bench/models.ts";
import { table } from "../../cli/console.ts";
import type { RunReport } from "../../src/evaluate/results.ts";
import type { Deviations } from "../engines/device-training.ts";

const root = resolve(import.meta.dirname, "../..");
const [out = "gpu-check", seconds = "420"] = process.argv.slice(2);
const deadline = performance.now() + 1000 * Number(seconds);
const work = mkdtempSync(join(tmpdir(), "ssa-gpu-"));

interface Row {
  readonly stage: string;
  readonly device: string;
  /** `skipped`: the device is not there, or the time was up. */
  readonly outcome: "ok" | "FAILED" | "skipped";
  readonly found: string;
  readonly seconds: number;
}
const rows: Row[] = [];
const steps: GpuResult[] = [];

interface Finished {
  readonly code: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

/** Runs node; killed after so many seconds, or when the output matches `until`. */
function node(args: readonly string[], limit: number, until?: RegExp): Promise<Finished> {
  const { NODE_TEST_CONTEXT: _, ...env } = process.env;
  return new Promise((done) => {
    const child = spawn(process.execPath, ["--import", "tsx", ...args], { cwd: root, env });
    let [stdout, stderr] = ["", ""];
    child.stdout.setEncoding("utf8").on("data", (text: string) => (stdout += text));
    child.stderr.setEncoding("utf8").on("data", (text: string) => {
      stderr += text;
      if (until?.test(stderr)) child.kill("SIGKILL");
    });
    const left = Math.min(1000 * limit, deadline - performance.now());
    const timer = setTimeout(() => child.kill("SIGKILL"), Math.max(1000, left));
    child.on("close", (code) => {
      clearTimeout(timer);
      done({ code, stdout, stderr });
    });
  });
}

const ssa = (args: readonly string[], limit = 240, until?: RegExp) =>
  node(["cli/main.ts", ...args], limit, until);

/** The last lines of what a failed process said. */
const lastWords = ({ code, stdout, stderr }: Finished) =>
  `exit ${code}: ${(stderr.trim() || stdout.trim()).split("\n").slice(-3).join(" | ").slice(-400)}`;

/** Runs a stage unless time is up; what it throws is its failure. */
async function stage(
  name: string,
  device: string,
  run: () => Promise<string>,
  outcome: Row["outcome"] = "ok",
): Promise<void> {
  const started = performance.now();
  const add = (outcome: Row["outcome"], found: string) => {
    const row = { stage: name, device, outcome, found };
    rows.push({ ...row, seconds: Math.round((performance.now() - started) / 100) / 10 });
    console.error(`${outcome.padEnd(8)} ${name}, ${device}: ${found}`);
    writeFileSync(join(out, "check.json"), JSON.stringify({ card, rows, steps }, null, 2));
  };
  if (performance.now() > deadline - 3000) return add("skipped", "no time left");
  try {
    add(outcome, await run());
  } catch (error) {
    if (performance.now() >= deadline) return add("skipped", "the time was up");
    add("FAILED", error instanceof Error ? error.message : String(error));
  }
}

function need(isFine: boolean, problem: string): asserts isFine {
  if (!isFine) throw new Error(problem);
}

/** Op by op and model by model against the CPU. */
async function agreement(device: string): Promise<string> {
  const suite = "tests/engines/agreement.test.ts";
  const done = await node(["--test", `--test-name-pattern=^${device}$`, suite], 150);
  const failed = [...done.stdout.matchAll(/^ +not ok \d+ - (.*)$/gm)].map(([, name]) => name);
  const found = [...done.stdout.matchAll(/^ +# (\w+): (\d[\d.e+-]*)/gm)];
  const worst = found.toSorted((a, b) => Number(b[2]) - Number(a[2]))[0];
  const why = [...done.stdout.matchAll(/^ +error: (?:[|>]-?\s+)?(.*)$/gm)]
    .map(([, text]) => text)
    .join("; ");
  need(done.code === 0, `${failed.length} differ: ${failed.join(", ")}: ${why.slice(0, 400)}`);
  return `${found.length} ops and models, at most ${worst?.[2]} (${worst?.[1]})`;
}

async function training(device: string): Promise<string> {
  const done = await node(["tests/engines/device-training.ts", device], 120);
  const found = done.stdout.trim().split("\n").filter(Boolean);
  const cases = found.map((line) => JSON.parse(line) as Deviations);
  need(done.code === 0 && cases.length > 0, lastWords(done));
  const gradients = Math.max(...cases.flatMap((each) => each.gradients));
  const half = Math.max(...cases.map((each) => each.halfLosses ?? 0));
  const text = `${cases.length} cases: gradients within ${gradients.toExponential(1)}, fp16 losses ${half.toExponential(1)}`;
  need(gradients <= 1e-4 && half <= 1e-2, text);
  return text;
}

const small =
  "--steps 2 --context 16 --batch-size 1 --gradient-accumulation-steps 1 --report-windows 1 --eval-windows 1".split(
    " ",
  );
const demo = ["finetune", "--recipe", "recipes/demo.yaml", "--json", "--log-format", "human"];

async function demoOn(device: string, name: string, flags: string[] = []): Promise<RunReport> {
  const where = ["--device", device, "--out", join(work, name)];
  const done = await ssa([...demo, ...less(device), ...where, ...flags]);
  need(done.code === 0, lastWords(done));
  return JSON.parse(done.stdout) as RunReport;
}

const change = ({ before, after }: RunReport) =>
  `${before.lossNats.toFixed(7)} to ${after.lossNats.toFixed(7)} nats`;

/** A run that is killed at its first checkpoint and resumed gives what one gives that was left alone. */
async function killed(device: string, whole: RunReport): Promise<string> {
  const folder = join(work, `killed-${device}`);
  const flags = [...less(device), "--device", device, "--out", folder];
  const first = await ssa([...demo, ...flags, "--save-every", "5"], 120, /step (?:[6-9]|\d\d)/);
  need(first.code === null, "it ended before it was killed");
  const done = await ssa([...demo, ...flags, "--save-every", "5", "--resume"]);
  need(done.code === 0, lastWords(done));
  const again = JSON.parse(done.stdout) as RunReport;
  const difference = Math.abs(again.after.lossNats - whole.after.lossNats);
  need(difference < 1e-5, `differs by ${difference}`);
  return `differs by ${difference.toExponential(1)} nats`;
}

async function pair(device: string): Promise<string> {
  const [one, two] = await Promise.all([demoOn(device, "one"), demoOn(device, "two")]);
  const difference = Math.abs(one.after.lossNats - two.after.lossNats);
  need(difference < 1e-5, `differ by ${difference}`);
  return `differ by ${difference.toExponential(1)} nats`;
}

async function measure(task: GpuTask): Promise<GpuResult> {
  const done = await node(["bench/gpu-child.ts", JSON.stringify(task)], 150);
  need(done.code === 0, lastWords(done));
  const result = JSON.parse(done.stdout) as GpuResult;
  steps.push(result);
  return result;
}

/** The command as a user gives it, on a model of GPT-2's size whose weights are random. */
async function randomModel(): Promise<string> {
  for (const file of ["tokenizer.json", "tokenizer_config.json"])
    copyFileSync(join(root, "checkpoints/tiny-gpt2", file), join(folder, file));
  const sizes = isSmall ? "--steps 10 --context 64" : "--steps 30 --context 1024";
  const shape = `${sizes} --batch-size 2 --report-windows 8 --eval-windows 4`.split(" ");
  const base = ["--base", folder, "--data", "moby-dick", ...shape];
  const flags = ["--device", "auto", "--json", "--log-format", "human"];
  const done = await ssa(["finetune", ...base, ...flags, "--out", join(work, "random")], 240);
  need(done.code === 0, lastWords(done));
  const report = JSON.parse(done.stdout) as RunReport;
  need(report.after.lossNats < report.before.lossNats + 0.05, change(report)); // it has nothing to learn from
  return `${report.device}: ${change(report)}`;
}

async function runs(device: string): Promise<void> {
  let whole: RunReport | undefined;
  await stage("demo", device, async () => change((whole = await demoOn(device, `demo-${device}`))));
  if (isSmall && device !== "cpu") return;
  await stage("killed and resumed", device, () => {
    need(whole !== undefined, "there is no whole run to compare with");
    return killed(device, whole);
  });
  await stage("two processes", device, () => pair(device));
  if (isSmall) return;
  for (const blocks of ["q4", "q8"])
    await stage(`demo, ${blocks}`, device, async () => {
      const on = (where: string) =>
        demoOn(where, `${blocks}-${where}-${device}`, ["--quantize", blocks]);
      const [report, expected] = [await on(device), await on("cpu")];
      const difference = Math.abs(report.before.lossNats - expected.before.lossNats);
      need(difference < 1e-5, `differs by ${difference} from the CPU's`);
      return `${change(report)}, before within ${difference.toExponential(1)} of the CPU's`;
    });
  await stage("demo, all auto", device, async () => {
    const flags = "--precision auto --batch-size auto --gradient-accumulation-steps 16".split(" ");
    const report = await demoOn(device, `auto-${device}`, flags);
    return `${JSON.stringify(report.chosen)}: ${change(report)}`;
  });
}

/** Without a card a shorter demo does. */
function less(device: string): readonly string[] {
  if (!isSmall) return [];
  return device === "webgpu"
    ? small
    : "--steps 12 --context 64 --batch-size 2 --report-windows 4 --eval-windows 2".split(" ");
}

function cardOf(): string | null {
  try {
    const query = ["--query-gpu=name,driver_version,memory.total", "--format=csv,noheader"];
    return execFileSync("nvidia-smi", query, { encoding: "utf8" }).trim();
  } catch {
    return null;
  }
}

mkdirSync(out, { recursive: true });
const card = cardOf();
const isSmall = card === null;
const numSteps = isSmall ? 3 : 30;
/** Why a device is not there. */
const absent = new Map<string, string>();
await stage("doctor", "all", async () => {
  const done = await ssa(["doctor", "--json"]);
  need(done.code === 0, lastWords(done));
  writeFileSync(join(out, "doctor.json"), done.stdout);
  const { devices } = JSON.parse(done.stdout) as {
    devices: { device: string; isAvailable: boolean; reason: string }[];
  };
  for (const { device, isAvailable, reason } of devices)
    if (!isAvailable) absent.set(device, reason);
  return devices.map((d) => `${d.device}: ${d.isAvailable ? "yes" : d.reason}`).join("; ");
});
const folder = join(work, "model");
mkdirSync(folder);
const reduced = { n_layer: 1, n_embd: 96, vocab_size: 4096 };
await writeRandomModel(folder, { ...GEOMETRIES.gpt2, ...(isSmall && reduced) });
const task = { folder, recompute: "cheap", batchSize: 1, context: isSmall ? 32 : 1024 } as const;

let expected: readonly number[] = [];
await stage(`${numSteps} steps`, "cpu", async () => {
  const shape = { ...task, device: "cpu", precision: "fp32", steps: numSteps } as const;
  const { losses, stepMs } = await measure(shape);
  expected = losses;
  return `loss ${losses[0]} to ${losses.at(-1)}, ${stepMs.toFixed(0)} ms a step`;
});
for (const device of isSmall ? ["webgpu"] : ["cuda", "webgpu"]) {
  const why = absent.get(device);
  if (why !== undefined) {
    // Where there is a card, its devices are to work.
    await stage("all", device, async () => (need(isSmall, why), why), isSmall ? "skipped" : "ok");
    continue;
  }
  for (const precision of isSmall ? (["fp32"] as const) : (["fp32", "fp16", "bf16"] as const)) {
    if (device === "webgpu" && precision === "bf16") continue;
    await stage(`${numSteps} steps, ${precision}`, device, async () => {
      const result = await measure({ ...task, device, precision, steps: numSteps });
      const differences = result.losses.map((loss, i) => Math.abs(loss - expected[i]!));
      const largest = Math.max(...differences);
      const text = `losses within ${largest.toExponential(1)} of the CPU's, ${result.stepMs.toFixed(1)} ms a step, ${result.deviceMb} MB`;
      need(largest <= (precision === "fp32" ? 1e-3 : 3e-2), text);
      return text;
    });
  }
  if (!isSmall) {
    await stage("agreement", device, () => agreement(device));
    await stage("training of fixtures", device, () => training(device));
  }
  await runs(device);
}
// On a software adapter these take minutes, and are tests besides; that the stages work shows on any device.
if (isSmall) {
  await stage("agreement", "tfjs:wasm", () => agreement("tfjs:wasm"));
  await runs("cpu");
}
await stage("demo", "auto", async () => {
  const report = await demoOn("auto", "demo-auto");
  return `${report.device}: ${change(report)}`;
});

await stage("random model", "auto", randomModel);
if (!isSmall)
  await stage("bench", "all", async () => {
    const done = await node(["bench/run.ts", "gpu", "--json"], Infinity);
    writeFileSync(join(out, "bench.json"), done.stdout);
    need(done.code === 0, lastWords(done));
    return "bench.json";
  });

const cells = rows.map((row) => Object.values(row).map(String));
const text = table(Object.keys(rows[0]!), cells, 200);
writeFileSync(join(out, "check.txt"), `${card ?? "no NVIDIA card"}\n\n${text}\n`);
console.log(readFileSync(join(out, "check.txt"), "utf8"));
rmSync(work, { recursive: true, force: true });
process.exitCode = rows.some(({ outcome }) => outcome === "FAILED") ? 1 : 0;
