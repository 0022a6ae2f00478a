// `ssa eval`: perplexity or another task of a model on data, with its uncertainty, and the gate of a CI job.

import { existsSync } from "node:fs";
import { dirname } from "node:path";
import { UserError } from "../../src/core/errors.ts";
import { type ConventionName, conventions } from "../../src/data/conventions.ts";
import {
  checkComparable,
  compareWithBaseline,
  type Comparison,
  readBaseline,
  writeBaseline,
} from "../../src/evaluate/regression.ts";
import type { Task } from "../../src/evaluate/evaluation.ts";
import type { TaskResult } from "../../src/evaluate/results.ts";
import { tasks } from "../../src/evaluate/tasks/index.ts";
import { evaluate } from "../../src/run/evaluate.ts";
import { shared } from "../../src/options/shared.ts";
import {
  maybe,
  oneOf,
  percentage,
  preset,
  text,
  wholeNumber,
  wholeNumberOr,
} from "../../src/options/values.ts";
import { defineCommand } from "../command.ts";
import { facts, formatDuration, formatInteger, formatPerplexity, formatRate } from "../console.ts";
import { print } from "../io.ts";
import { places } from "../models.ts";
import { stoppable } from "../stop.ts";

const options = {
  model: shared.model,
  data: shared.data,
  adapter: shared.adapter,
  context: maybe(wholeNumber(2), "tokens of a window (default: the model's, at most 1024)"),
  stride: maybe(wholeNumber(1), "tokens between windows (default: the context)"),
  windows: preset(
    wholeNumberOr("all", 1),
    "all",
    "score an even, fixed subset of the windows, or all",
  ),
  batchSize: preset(wholeNumber(1), 1, "windows at a time; the result does not depend on it"),
  task: preset(
    oneOf(Object.keys(tasks) as (keyof typeof tasks)[], "name"),
    "perplexity",
    "what to measure",
  ),
  convention: maybe(
    oneOf(Object.keys(conventions) as ConventionName[], "name"),
    "a published way to measure",
  ),
  textColumn: shared.textColumn,
  nullRows: shared.nullRows,
  device: shared.device,
  threads: shared.threads,
  baseline: maybe(text("file"), "compare with a report.json or a saved baseline"),
  maxIncrease: maybe(percentage(), "allowed rise of perplexity (default: 0%)"),
  saveBaseline: maybe(text("file"), "write the result for later comparisons"),
  json: shared.json,
};

export const command = defineCommand({
  options,
  examples: `Example, a CI job that fails when perplexity rises by more than 0.5 %:
  $ ssa eval --model checkpoints/tiny-gpt2-moby-dick-1/final --data moby-dick \\
      --baseline checkpoints/tiny-gpt2-moby-dick-1/report.json --max-increase 0.5%`,
  async run(given, io) {
    // What can be refused is refused before the work.
    const { saveBaseline, baseline: path, json, maxIncrease = 0, ...named } = given;
    if (given.maxIncrease !== undefined && !path)
      throw new UserError("--max-increase needs a --baseline to compare with");
    const baseline = path && (await readBaseline(path));
    if (saveBaseline && !existsSync(dirname(saveBaseline)))
      throw new UserError(`there is no folder ${dirname(saveBaseline)} to save the baseline in`);
    const started = io.now();
    const task: Task = tasks[given.task];
    const { progress } = io;
    await stoppable(io, "after this window", async (signal) => {
      let [total, device, begun] = [0, "", 0];
      const result: TaskResult = await evaluate({
        ...places(io),
        ...named,
        windows: given.windows === "all" ? undefined : given.windows,
        signal,
        onPlan: (plan, on) => {
          if (baseline) checkComparable(plan.conditions, baseline);
          total = plan.groups.reduce((sum, { windows }) => sum + windows.length, 0);
          [device, begun] = [on, io.now()];
        },
        onBatch: ({ windows: done, numTokens }) => {
          const seconds = (io.now() - begun) / 1000;
          const left = formatDuration((seconds / done) * (total - done));
          const rate = formatRate(numTokens / seconds);
          const where = `window ${done} of ${total}`;
          progress.update([where, rate, `${left} left`], done / total);
        },
      });
      progress.done();
      const comparison = baseline ? compareWithBaseline(result, baseline, maxIncrease) : undefined;
      if (saveBaseline) await writeBaseline(saveBaseline, result);
      if (comparison?.hasRegressed) io.exitCode = 1;
      print(io, json, { ...result, ...(comparison && { comparison }) }, () =>
        facts(
          {
            ...Object.fromEntries(
              task.summary(result).map(([what, value]) => [what, shown(value)]),
            ),
            device,
            time: formatDuration((io.now() - started) / 1000),
          },
          io.columns,
        ),
      );
      if (comparison) (json ? io.stderr : io.stdout).write(`${verdict(comparison)}\n`);
    });
  },
});

const shown = (value: string | number) =>
  typeof value === "string"
    ? value
    : (Number.isInteger(value) ? formatInteger : formatPerplexity)(value);

/** One line fit for a CI log. */
function verdict({ hasRegressed, percent, ...rest }: Comparison): string {
  const [now, then] = [rest.perplexity, rest.baselinePerplexity].map(formatPerplexity);
  const change = `${percent < 0 ? "" : "+"}${percent.toFixed(3)}%`;
  const word = hasRegressed ? "REGRESSION" : "OK";
  return `${word}: perplexity ${now}, baseline ${then} (${change}, allowed +${rest.maxIncreasePercent}%)`;
}
