// `ssa eval`: perplexity or another task of a model on data, with its uncertainty, and the gate of a CI job.

import { existsSync } from "node:fs";
import { availableParallelism } from "node:os";
import { dirname } from "node:path";
import { type Command, InvalidArgumentError, Option } from "commander";
import { openModel } from "../../src/model/open.ts";
import { UserError } from "../../src/core/errors.ts";
import { type ConventionName, conventions } from "../../src/data/conventions.ts";
import { selectSplit } from "../../src/data/readers/files.ts";
import {
  checkComparable,
  compareWithBaseline,
  type Comparison,
  parseIncrease,
  readBaseline,
  writeBaseline,
} from "../../src/evaluate/regression.ts";
import { evaluate, type Task } from "../../src/evaluate/evaluation.ts";
import { tasks } from "../../src/evaluate/tasks/index.ts";
import { formatDuration, formatInteger, formatPerplexity, formatRate, table } from "../console.ts";
import { findData, tokenizing } from "../data.ts";
import { startEngine } from "../engine.ts";
import { cacheFolder, type CommandIo, openProgress } from "../io.ts";
import { hubOptions, opening } from "../models.ts";

interface EvalOptions {
  readonly model: string;
  readonly adapter?: string;
  readonly data: string;
  readonly context?: number;
  readonly stride?: number;
  readonly windows: number | "all";
  readonly batchSize: number;
  readonly convention?: ConventionName;
  readonly task: keyof typeof tasks;
  readonly textColumn: string;
  readonly device: string;
  readonly threads: number;
  readonly baseline?: string;
  readonly maxIncrease?: string;
  readonly saveBaseline?: string;
  readonly json?: boolean;
}

export function evalCommand(program: Command, io: CommandIo): void {
  program
    .command("eval")
    .description("measure perplexity, and fail when it rose over a baseline")
    .requiredOption(
      "--model <model>",
      "model folder, run folder, Hugging Face id[@revision] or embedded name",
    )
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
      new Option("--task <name>", "what to measure")
        .choices(Object.keys(tasks))
        .default("perplexity"),
    )
    .addOption(
      new Option("--convention <name>", "a published way to measure").choices(
        Object.keys(conventions),
      ),
    )
    .option("--text-column <name>", "column with the text in jsonl and parquet data", "text")
    .option("--device <device>", "where to compute", io.env["SSA_DEVICE"] ?? "auto")
    .option("--threads <n>", "processor threads (default: the physical cores)", count, 0)
    .option("--baseline <file>", "compare with a report.json or a saved baseline")
    .option("--max-increase <percent>", "allowed rise of perplexity (default: 0%)")
    .option("--save-baseline <file>", "write the result for later comparisons")
    .option("--json", "print one JSON document")
    .addHelpText(
      "after",
      `
Example, a CI job that fails when perplexity rises by more than 0.5 %:
  $ ssa eval --model checkpoints/tiny-gpt2-moby-dick-1/final --data moby-dick \\
      --baseline checkpoints/tiny-gpt2-moby-dick-1/report.json --max-increase 0.5%`,
    )
    .action((options: EvalOptions) => runEval(options, io));
}

async function runEval(options: EvalOptions, io: CommandIo): Promise<void> {
  // What can be refused is refused before the work.
  const task: Task = tasks[options.task];
  const gate = await readGate(options);
  const { saveBaseline } = options;
  if (saveBaseline && !existsSync(dirname(saveBaseline)))
    throw new UserError(`there is no folder ${dirname(saveBaseline)} to save the baseline in`);
  const started = io.now();
  const { opened, plan } = await prepareEval(task, options, io);
  if (gate) checkComparable(plan.conditions, gate.baseline);
  const total = plan.groups.reduce((sum, { windows }) => sum + windows.length, 0);
  const progress = openProgress(io);
  const engine = await startEngine(options.device, options.threads, (line) => progress.line(line));
  const begun = io.now();
  const { result } = await evaluate(engine, opened, plan, {
    batchSize: options.batchSize,
    onBatch: ({ windows: done, numTokens }) => {
      const seconds = (io.now() - begun) / 1000;
      const left = (seconds / done) * (total - done);
      progress.update(
        [
          `window ${done} of ${total}`,
          formatRate(numTokens / seconds),
          `${formatDuration(left)} left`,
        ],
        done / total,
      );
    },
  }).finally(() => progress.done());
  await engine.dispose();
  const comparison = gate && compareWithBaseline(result, gate.baseline, gate.maxIncrease);
  if (saveBaseline) await writeBaseline(saveBaseline, result);
  if (comparison?.hasRegressed) io.exitCode = 1;
  if (options.json) {
    const document = comparison ? { ...result, comparison } : result;
    io.stdout.write(`${JSON.stringify(document, null, 2)}\n`);
    if (comparison) io.stderr.write(`${verdict(comparison)}\n`);
    return;
  }
  const seconds = (io.now() - started) / 1000;
  io.stdout.write(
    `${resultTable(task.summary(result), seconds, engine.description, io.columns)}\n`,
  );
  if (comparison) io.stdout.write(`${verdict(comparison)}\n`);
}

/** The baseline and what may be lost against it. */
async function readGate({ baseline, maxIncrease }: EvalOptions) {
  if (maxIncrease !== undefined && baseline === undefined)
    throw new UserError("--max-increase needs a --baseline to compare with");
  if (baseline === undefined) return undefined;
  return {
    maxIncrease: parseIncrease(maxIncrease ?? "0%"),
    baseline: await readBaseline(baseline),
  };
}

/** The model, and what is scored of the data. */
async function prepareEval(task: Task, options: EvalOptions, io: CommandIo) {
  const { model, adapter } = options;
  const opened = await openModel(model, { ...opening(io), adapter });
  const data = await findData(options.data, io, hubOptions(io));
  const progress = openProgress(io);
  const plan = await task
    .plan(opened, selectSplit(data, data.split ?? "evaluation"), {
      field: options.textColumn,
      separator: data.separator,
      cacheFolder: cacheFolder(io, "tokens"),
      threads: options.threads || availableParallelism(),
      onProgress: tokenizing(progress),
      context: options.context,
      stride: options.stride,
      windows: options.windows === "all" ? undefined : options.windows,
      convention: options.convention,
    })
    .finally(() => progress.done());
  return { opened, plan };
}

function resultTable(
  summary: ReturnType<Task["summary"]>,
  seconds: number,
  device: string,
  columns: number,
): string {
  const shown = (value: string | number) =>
    typeof value === "string"
      ? value
      : (Number.isInteger(value) ? formatInteger : formatPerplexity)(value);
  const rows = summary.map(([what, value]) => [what, shown(value)]);
  const facts = [...rows, ["device", device], ["time", formatDuration(seconds)]];
  return table(
    [],
    facts.filter(([, value]) => value !== ""),
    columns,
  );
}

/** One line fit for a CI log. */
function verdict({ hasRegressed, percent, ...rest }: Comparison): string {
  const [now, then] = [rest.perplexity, rest.baselinePerplexity].map(formatPerplexity);
  const change = `${percent < 0 ? "" : "+"}${percent.toFixed(3)}%`;
  const word = hasRegressed ? "REGRESSION" : "OK";
  return `${word}: perplexity ${now}, baseline ${then} (${change}, allowed +${rest.maxIncreasePercent}%)`;
}

export function count(text: string): number {
  const value = Number(text);
  if (Number.isInteger(value) && value > 0) return value;
  throw new InvalidArgumentError("a positive whole number is needed.");
}

const countOrAll = (text: string) => (text === "all" ? text : count(text));
