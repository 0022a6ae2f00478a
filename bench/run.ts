// `npm run bench -- CASE [--recompute] [--tokens N] [--batch N] [--threads N] [--rounds N] [--corpus N] [--longest N] [--json]`, CASE being eval, step,
// memory, context, start, tokenize, growth, corpus, scaling, ranks, answers, floors, exchanges, gpu or all: what the README and docs say of speed and memory.

import { mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { table } from "../cli/console.ts";
import { openModel } from "../src/model/open.ts";
import { neededOperations } from "./cost.ts";
import { planBlocks } from "../src/model/quantize.ts";
import { quantizationOf } from "../src/model/blocks.ts";
import { GEOMETRIES, openWithTemperatures, writeRandomModel } from "./models.ts";
import { cardName } from "./card.ts";
import { measureAnswers } from "./answers.ts";
import { measureGpu } from "./gpu.ts";
import { measureCorpus, measureGrowth } from "./growth.ts";
import { exchanges, floors } from "./paper.ts";
import { matmulRate, measureByTurns, startMatmul, startPeer, startTask } from "./processes.ts";
import { measureRanks } from "./ranks.ts";
import { measureScaling, predictedMb } from "./scaling.ts";
import { measureStart } from "./start.ts";
import { measureTokenizing } from "./tokenize.ts";

const { values: options, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    json: { type: "boolean", default: false },
    recompute: { type: "boolean", default: false },
    tokens: { type: "string", default: "1024" },
    batch: { type: "string", default: "1" },
    threads: { type: "string", default: "2" },
    rounds: { type: "string", default: "5" },
    corpus: { type: "string", default: "100000000" },
    longest: { type: "string", default: "32768" },
    tokenizer: { type: "string" },
    text: { type: "string" },
  },
});
const [threads, rounds] = [Number(options.threads), Number(options.rounds)];

type Row = Readonly<Record<string, string | number | null>>;

interface Workload {
  readonly kind: "eval" | "step";
  readonly batchSize: number;
  readonly context: number;
  readonly recompute: "cheap" | "blocks";
  readonly quantize?: "q4" | "q8";
}

/** Our work, PyTorch's step and a plain matrix product by turns. */
async function compare(folder: string, { kind, recompute, ...window }: Workload): Promise<Row> {
  const { model } = await openModel(folder);
  const ours = await startTask({ kind, folder, threads, recompute, ...window });
  const matmul = await startMatmul(threads);
  const peer = kind === "step" ? await startPeer(model, { ...window, threads }) : null;
  const processes = peer ? [ours, matmul, peer] : [ours, matmul];
  await measureByTurns(processes, rounds);
  const [our, product, theirs] = [ours.measured(), matmul.measured(), peer?.measured()];
  for (const each of processes) await each.stop();
  const operations = neededOperations(model, window)[kind];
  const rate = matmulRate(product);
  return {
    case: kind + (recompute === "blocks" ? " --recompute" : ""),
    tokens: `${window.batchSize} x ${window.context}`,
    stepMs: our.medianMs,
    shareOfMatmulRate: operations / our.medianMs / rate,
    matmulGflops: rate / 1e6,
    peakRssMb: our.peakRssMb,
    peer: peer?.greeting.peer ?? null,
    peerStepMs: theirs?.medianMs ?? null,
    peerPeakRssMb: theirs?.peakRssMb ?? null,
    ratioToPeer: theirs ? theirs.medianMs / our.medianMs : null,
  };
}

/** Peak memory of three steps, or of one where each takes minutes. */
async function peak(folder: string, workload: Workload, isLong = false): Promise<Row> {
  const ours = await startTask({ folder, threads, ...workload });
  await (isLong ? ours.run() : measureByTurns([ours], 1));
  const { medianMs, peakRssMb } = ours.measured();
  const programBytes = 1e6 * ours.greeting.programMb!;
  await ours.stop();
  const { recompute, quantize = "none" } = workload;
  const spec = quantizationOf({ quantize });
  const plain = await openWithTemperatures(folder);
  const planned = spec ? planBlocks(plain, spec) : plain;
  const { model_type } = JSON.parse(await readFile(join(folder, "config.json"), "utf8")) as Row;
  return {
    case: `${model_type}${recompute === "blocks" ? " --recompute" : ""}${spec ? ` --quantize ${quantize}` : ""}`,
    tokens: `${workload.batchSize} x ${workload.context}`,
    stepMs: medianMs,
    peakRssMb,
    predictedMb: predictedMb(planned, workload, recompute, programBytes),
  };
}

/** Of every number three digits, or all before the point. */
function rounded(row: Row): Row {
  const round = (x: number) => (x < 100 ? Number(x.toPrecision(3)) : Math.round(x));
  return Object.fromEntries(
    Object.entries(row).map(([name, x]) => [name, typeof x === "number" ? round(x) : x]),
  );
}

type Benchmark = (root: string) => Promise<Row[]>;

async function gpt2Folder(root: string): Promise<string> {
  await writeRandomModel(root, GEOMETRIES.gpt2);
  return root;
}

const window = { batchSize: Number(options.batch), context: Number(options.tokens) };
const recompute = options.recompute ? "blocks" : "cheap";

const benchmarks: Readonly<Record<string, Benchmark>> = {
  eval: async (root) => [
    await compare(await gpt2Folder(root), { kind: "eval", recompute, ...window }),
  ],
  step: async (root) => [
    await compare(await gpt2Folder(root), { kind: "step", recompute, ...window }),
  ],
  memory: async (root) => {
    const gpt2 = await gpt2Folder(root);
    const rows: Row[] = [];
    for (const [batchSize, how] of [
      [1, "cheap"],
      [1, "blocks"],
      [4, "blocks"],
    ] as const)
      rows.push(await peak(gpt2, { kind: "step", recompute: how, batchSize, context: 1024 }));
    // Few layers, since what counts is the largest matrix and the vocabulary; the other layers add what the plan says.
    const config = { ...GEOMETRIES["llama-3.2-1b"], num_hidden_layers: 4 };
    await writeRandomModel(root, config, "BF16");
    const llama = { kind: "step", recompute: "blocks", batchSize: 1 } as const;
    for (const context of [512, 2048, 4096])
      for (const quantize of [undefined, "q8", "q4"] as const)
        rows.push(await peak(root, { ...llama, context, ...(quantize && { quantize }) }));
    return rows;
  },
  context: async (root) => {
    await writeRandomModel(root, GEOMETRIES["llama-narrow"]);
    const rows: Row[] = [];
    for (let context = 4096; context <= Number(options.longest); context *= 2)
      rows.push(await peak(root, { kind: "step", recompute, batchSize: 1, context }, true));
    return rows;
  },
  start: async (root) => [await measureStart(await gpt2Folder(root), rounds, threads)],
  tokenize: async () => await measureTokenizing(options, threads),
  growth: async (root) => [await measureGrowth(root, threads)],
  corpus: (root) => measureCorpus(root, threads, Number(options.corpus)),
  scaling: (root) => measureScaling(root, rounds, threads),
  ranks: (root) => measureRanks(root, rounds, window.context),
  answers: (root) => measureAnswers(root, rounds, threads),
  floors,
  exchanges,
  gpu: (root) => measureGpu(root, 4 * rounds),
};

const [chosen = "step"] = positionals;
const card = chosen === "gpu" || chosen === "all" ? cardName() : null;
if (chosen === "gpu" && card === null) {
  console.error("bench gpu needs an NVIDIA card: nvidia-smi lists none");
  process.exit(2);
}
const hasCard = (name: string) => name !== "gpu" || card !== null;
const names = chosen === "all" ? Object.keys(benchmarks).filter(hasCard) : [chosen];
const results: Record<string, Row[]> = {};
for (const name of names) {
  const benchmark = benchmarks[name];
  if (!benchmark) throw new Error(`${name}: known are ${Object.keys(benchmarks).join(", ")}, all`);
  const root = await mkdtemp(join(tmpdir(), "ssa-bench-"));
  try {
    results[name] = (await benchmark(root)).map(rounded);
  } finally {
    await rm(root, { recursive: true, force: true });
  }
  // With JSON on stdout, the table goes where people look.
  (options.json ? console.error : console.log)(`${asTable(results[name])}\n`);
}
if (options.json) {
  const single = names.length === 1 ? results[names[0]!]! : undefined;
  console.log(JSON.stringify(single?.length === 1 ? single[0] : (single ?? results)));
}

/** Many rows as columns, a few as pairs. */
function asTable(rows: readonly Row[]): string {
  const cells = (row: Row) => Object.values(row).map((value) => String(value ?? "-"));
  if (rows.length > 4) return table(Object.keys(rows[0]!), rows.map(cells), Infinity);
  const pairs = rows.map((row) => Object.keys(row).map((name, i) => [name, cells(row)[i]!]));
  return pairs.map((pair) => table([], pair)).join("\n\n");
}
