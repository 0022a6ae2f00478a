// `ssa eval`: perplexity or another task of a model on data, with its uncertainty, and the gate of a CI job.

import { existsSync } from "node:fs";
import { dirname } from "node:path";
import { UserError } from "../../src/core/errors.ts";
import { type ConventionName, conventions } from "../../src/data/windows.ts";
import type { Task } from "../../src/evaluate/evaluation.ts";
import * as regression from "../../src/evaluate/results.ts";
import { tasks } from "../../src/evaluate/tasks/index.ts";
import { rowOptions } from "../../src/options/rows.ts";
import * as kind from "../../src/options/values.ts";
import { evaluate } from "../../src/run/evaluate.ts";
import { defineCommand } from "../command.ts";
import { facts } from "../console.ts";
import * as format from "../format.ts";
import { places, print } from "../io.ts";

const { maybe, oneOf, preset, shared, text, wholeNumber } = kind;

const TASKS = Object.keys(tasks) as (keyof typeof tasks)[];
const CONVENTIONS = Object.keys(conventions) as ConventionName[];

const options = {
  model: shared.model,
  data: shared.data,
  adapter: shared.adapter,
  context: maybe(wholeNumber(2), "tokens of a window (default: the model's, at most 1024)"),
  stride: maybe(wholeNumber(1), "tokens between windows (default: the context)"),
  windows: preset(kind.wholeNumberOr("all", 1), "all", "score an even, fixed subset, or all"),
  batchSize: preset(wholeNumber(1), 1, "windows at a time; the result does not depend on it"),
  task: preset(oneOf(TASKS, "name"), "perplexity", "what to measure"),
  convention: maybe(oneOf(CONVENTIONS, "name"), "a published way to measure"),
  ...rowOptions,
  device: shared.device,
  threads: shared.threads,
  baseline: maybe(text("file"), "compare with a report.json or a saved baseline"),
  maxIncrease: maybe(kind.percentage(), "allowed rise of perplexity (default: 0%)"),
  saveBaseline: maybe(text("file"), "write the result for later comparisons"),
  refresh: shared.refresh,
  json: shared.json,
};

export const command = defineCommand({
  options,
  stops: "after this window",
  examples: `Example, a CI job that fails when perplexity rises by more than 0.5 %:
  $ ssa eval --model checkpoints/tiny-gpt2-moby-dick-1/final --data moby-dick \\
      --baseline checkpoints/tiny-gpt2-moby-dick-1/report.json --max-increase 0.5%`,
  async run(values, io, { signal }) {
    const { saveBaseline, baseline: path, maxIncrease, refresh, json, ...given } = values;
    // What can be refused is refused before the work.
    if (maxIncrease !== undefined && !path)
      throw new UserError("--max-increase needs a --baseline to compare with");
    const baseline = path && (await regression.readBaseline(path));
    if (saveBaseline && !existsSync(dirname(saveBaseline)))
      throw new UserError(`there is no folder ${dirname(saveBaseline)} to save the baseline in`);
    const started = io.now();
    const task: Task = tasks[given.task];
    let [total, device, begun] = [0, "", 0];
    const result = await evaluate({
      ...places(io, refresh),
      ...given,
      windows: given.windows === "all" ? undefined : given.windows,
      signal,
      onPlan: (plan, on) => {
        if (baseline) regression.checkComparable(plan.conditions, baseline);
        total = plan.groups.reduce((sum, { windows }) => sum + windows.length, 0);
        [device, begun] = [on, io.now()];
      },
      onBatch: ({ windows: done, numTokens }) => {
        const seconds = (io.now() - begun) / 1000;
        const left = format.duration((seconds / done) * (total - done));
        const fields = [`window ${done} of ${total}`, format.rate(numTokens / seconds)];
        io.progress.update([...fields, `${left} left`], done / total);
      },
    });
    const compare = regression.compareWithBaseline;
    const comparison = baseline ? compare(result, baseline, maxIncrease ?? 0) : undefined;
    if (saveBaseline) await regression.writeBaseline(saveBaseline, result);
    const summary = () => {
      const lines = task.summary(result).map(([what, value]) => [what, shown(value)] as const);
      const time = format.duration((io.now() - started) / 1000);
      return facts({ ...Object.fromEntries(lines), device, time }, io.columns);
    };
    print(io, json, { ...result, ...(comparison && { comparison }) }, summary);
    if (!comparison) return;
    (json ? io.stderr : io.stdout).write(`${verdict(comparison)}\n`);
    if (comparison.hasRegressed) io.exitCode = 1;
  },
});

function shown(value: string | number): string {
  if (typeof value === "string") return value;
  return (Number.isInteger(value) ? format.integer : format.perplexity)(value);
}

/** One line fit for a CI log. */
function verdict({ hasRegressed, percent, ...rest }: regression.Comparison): string {
  const [now, then] = [rest.perplexity, rest.baselinePerplexity].map(format.perplexity);
  const change = `${percent < 0 ? "" : "+"}${percent.toFixed(3)}%`;
  const word = hasRegressed ? "REGRESSION" : "OK";
  return `${word}: perplexity ${now}, baseline ${then} (${change}, allowed +${rest.maxIncreasePercent}%)`;
}
