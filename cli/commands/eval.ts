// `ssa eval`: perplexity of a model on data, with its uncertainty, and the gate of a CI job.

import { type Command, InvalidArgumentError, Option } from "commander";
import { openModel } from "../../src/augmented/open.ts";
import { writeFileAtomic } from "../../src/formats/atomic.ts";
import { modelSha256 } from "../../src/formats/safetensors.ts";
import { conventionByName, conventions } from "../../src/data/conventions.ts";
import { selectSplit } from "../../src/data/data-files.ts";
import {
  compareWithBaseline,
  type Comparison,
  parseIncrease,
  readBaseline,
} from "../../src/report/regression.ts";
import type { PerplexityResult } from "../../src/report/report.ts";
import { readCorpus } from "../../src/run/corpus.ts";
import { evaluate, planWindows } from "../../src/run/evaluate.ts";
import {
  formatDuration,
  formatInteger,
  formatPercent,
  formatPerplexity,
  formatRate,
  table,
} from "../console.ts";
import { findData } from "../data.ts";
import { startEngine } from "../engine.ts";
import { cacheFolder, type CommandIo, openProgress } from "../io.ts";
import { findModel, hubOptions } from "../models.ts";

interface EvalOptions {
  readonly model: string;
  readonly adapter?: string;
  readonly data: string;
  readonly context?: number;
  readonly stride?: number;
  readonly windows: number | "all";
  readonly batchSize: number;
  readonly convention?: string;
  readonly textColumn: string;
  readonly device: string;
  readonly threads: number;
  readonly baseline?: string;
  readonly maxIncrease: string;
  readonly saveBaseline?: string;
  readonly json?: boolean;
}

export function evalCommand(program: Command, io: CommandIo): void {
  program
    .command("eval")
    .description("measure perplexity, and fail when it rose over a baseline")
    .requiredOption("--model <model>", "model folder, Hugging Face id[@revision] or embedded name")
    .requiredOption("--data <data>", "file, folder, Hugging Face id[:config][@split] or name")
    .option("--adapter <folder>", "temperatures to put on the model")
    .option("--context <n>", "tokens of a window (default: the model's, at most 1024)", count)
    .option("--stride <n>", "tokens between windows (default: the context)", count)
    .option(
      "--windows <n>",
      "score an even, fixed subset of the windows, or all",
      countOrAll,
      "all",
    )
    .option("--batch-size <n>", "windows at a time; the result does not depend on it", count, 1)
    .addOption(
      new Option("--convention <name>", "a published way to measure").choices(
        conventions.map(({ name }) => name),
      ),
    )
    .option("--text-column <name>", "column with the text in jsonl and parquet data", "text")
    .option("--device <device>", "where to compute", io.env["SSA_DEVICE"] ?? "auto")
    .option("--threads <n>", "processor threads (default: the physical cores)", count, 0)
    .option("--baseline <file>", "compare with a report.json or a saved baseline")
    .option("--max-increase <percent>", "largest rise of perplexity over the baseline", "0%")
    .option("--save-baseline <file>", "write the result for later comparisons")
    .option("--json", "print one JSON document")
    .addHelpText(
      "after",
      `
Example, a CI job that fails when perplexity rises by more than 0.5 %:
  $ ssa eval --model checkpoints/run/final --data held-out.txt \\
      --baseline checkpoints/run/report.json --max-increase 0.5%`,
    )
    .action((options: EvalOptions) => runEval(options, io));
}

async function runEval(options: EvalOptions, io: CommandIo): Promise<void> {
  // What can be refused is refused before the work.
  const maxIncrease = parseIncrease(options.maxIncrease);
  const baseline = options.baseline ? await readBaseline(options.baseline) : undefined;
  const convention = options.convention ? conventionByName(options.convention) : undefined;
  const settings = hubOptions(io);
  const augmented = await openModel(await findModel(options.model, io, settings), {
    ...(options.adapter && { adapter: options.adapter }),
    resolveBase: (name, revision) =>
      findModel(revision ? `${name}@${revision}` : name, io, settings),
  });
  const data = await findData(options.data, io, settings);
  const split = selectSplit(data, data.split ?? "evaluation");
  const progress = openProgress(io);
  const started = io.now();
  const corpus = await readCorpus(augmented, split, {
    field: options.textColumn,
    separator: data.separator,
    convention,
    cacheFolder: cacheFolder(io, "tokens"),
    threads: options.threads || 2,
    onProgress: ({ tokens }) => progress.update(["tokenizing", `${formatInteger(tokens)} tokens`]),
  });
  const plan = planWindows(augmented, corpus, {
    context: options.context,
    stride: options.stride,
    windows: options.windows === "all" ? undefined : options.windows,
    convention,
  });
  const engine = await startEngine(options.device, options.threads, (line) => progress.line(line));
  const begun = io.now();
  const { result } = await evaluate(engine, augmented, corpus, plan, {
    batchSize: options.batchSize,
    modelSha256: await modelSha256(augmented.checkpoint),
    onBatch: ({ windows, numTokens }) => {
      const seconds = (io.now() - begun) / 1000;
      const left = (seconds / windows) * (plan.windows.length - windows);
      progress.update(
        [
          `window ${windows} of ${plan.windows.length}`,
          formatRate(numTokens / seconds),
          `${formatDuration(left)} left`,
        ],
        windows / plan.windows.length,
      );
    },
  });
  progress.done();
  await engine.dispose();
  const comparison = baseline && compareWithBaseline(result, baseline, maxIncrease);
  if (options.saveBaseline)
    await writeFileAtomic(options.saveBaseline, `${JSON.stringify(result, null, 2)}\n`);
  if (comparison?.hasRegressed) io.exitCode = 1;
  if (options.json)
    io.stdout.write(
      `${JSON.stringify(comparison ? { ...result, comparison } : result, null, 2)}\n`,
    );
  else {
    const seconds = (io.now() - started) / 1000;
    io.stdout.write(`${resultTable(result, seconds, engine.description, io.columns)}\n`);
    if (comparison) io.stdout.write(`${verdict(comparison)}\n`);
  }
}

function resultTable(
  result: PerplexityResult,
  seconds: number,
  device: string,
  columns: number,
): string {
  const {
    lossNats,
    standardError,
    perplexity,
    bitsPerByte,
    wordPerplexity,
    windows,
    windowsTotal,
  } = result;
  const error = standardError === null ? "" : ` ± ${standardError.toFixed(4)}`;
  const subset = windows === windowsTotal ? "" : `, an even subset of ${windowsTotal}`;
  const rows = [
    ["perplexity", formatPerplexity(perplexity)],
    ["loss", `${lossNats.toFixed(5)}${error} nats per token`],
    ...(bitsPerByte === null ? [] : [["bits per byte", bitsPerByte.toFixed(5)]]),
    ...(wordPerplexity === null ? [] : [["per word", formatPerplexity(wordPerplexity)]]),
    ["tokens scored", formatInteger(result.numTokens)],
    ["windows", `${formatInteger(windows)} of ${result.context} tokens${subset}`],
    ["convention", `${result.convention}, stride ${result.stride}`],
    ["device", device],
    ["time", formatDuration(seconds)],
  ];
  return table([], rows, columns);
}

/** One line fit for a CI log. */
function verdict({ hasRegressed, percent, ...rest }: Comparison): string {
  const change = formatPercent(percent, { isChange: true });
  const limit = formatPercent(rest.maxIncreasePercent, { isChange: true });
  return `${hasRegressed ? "REGRESSION" : "OK"}: perplexity ${formatPerplexity(rest.perplexity)}, baseline ${formatPerplexity(rest.baselinePerplexity)} (${change}, allowed ${limit})`;
}

export function count(text: string): number {
  const value = Number(text);
  if (Number.isInteger(value) && value > 0) return value;
  throw new InvalidArgumentError("a positive whole number is needed.");
}

const countOrAll = (text: string) => (text === "all" ? text : count(text));
