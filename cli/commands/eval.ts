// `ssa eval`: perplexity or other tasks of a model on data, with their uncertainty, and the gate of a CI job.

import { existsSync } from "node:fs";
import { dirname } from "node:path";
import { UserError } from "../../src/core/errors.ts";
import { type ConventionName, conventions } from "../../src/data/windows.ts";
import type { Task } from "../../src/evaluate/evaluation.ts";
import * as regression from "../../src/evaluate/results.ts";
import type { TaskResult } from "../../src/evaluate/results.ts";
import { tasks } from "../../src/evaluate/tasks/index.ts";
import { rowOptions } from "../../src/options/rows.ts";
import { temperaturesOption } from "../../src/options/schema.ts";
import * as kind from "../../src/options/values.ts";
import { evaluate } from "../../src/run/evaluate.ts";
import { defineCommand } from "../command.ts";
import { facts } from "../console.ts";
import * as format from "../format.ts";
import { places, print } from "../io.ts";

const { maybe, oneOf, preset, shared, text, wholeNumber } = kind;

type TaskName = keyof typeof tasks;
const TASKS = Object.keys(tasks) as TaskName[];
const CONVENTIONS = Object.keys(conventions) as ConventionName[];

const options = {
  model: shared.model,
  data: maybe(text("data"), "as of finetune (default: what the task is known by, on the hub)"),
  adapter: shared.adapter,
  temperatures: temperaturesOption,
  context: maybe(wholeNumber(2), "tokens of a window (default: the model's, at most 1024)"),
  stride: maybe(wholeNumber(1), "tokens between windows (default: the context)"),
  windows: preset(kind.wholeNumberOr("all", 1), "all", "score an even, fixed subset, or all"),
  batchSize: preset(wholeNumber(1), 1, "windows at a time; the result does not depend on it"),
  task: preset(
    kind.someOf(TASKS, "names").meta({ alias: "--tasks" }),
    ["perplexity"],
    "what to measure (default: perplexity)",
  ),
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
    const baseline = path ? await regression.readBaseline(path) : undefined;
    if (maxIncrease !== undefined && baseline?.outcomes !== undefined)
      throw new UserError("--max-increase is of perplexity; of answers, chance decides");
    if (saveBaseline && !existsSync(dirname(saveBaseline)))
      throw new UserError(`there is no folder ${dirname(saveBaseline)} to save the baseline in`);
    const several = given.task.length > 1;
    if (several && (baseline || saveBaseline))
      throw new UserError("a baseline is of one task", { hint: "name one: --task" });
    const isAlone = (name: TaskName) => !several || !("data" in tasks[name]);
    if (given.data && !given.task.some(isAlone))
      throw new UserError("--data is of one task", { hint: "name one, or leave --data out" });
    const results: Record<string, TaskResult> = {};
    const tables: string[] = [];
    for (const name of given.task) {
      const started = io.now();
      let [total, device, begun] = [0, "", 0];
      const result = await evaluate<TaskName>({
        ...places(io, refresh),
        ...given,
        task: name,
        // One that has data of its own gets other data only where it is alone.
        data: isAlone(name) ? given.data : undefined,
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
          const of = `${several ? `${name}, ` : ""}window ${done} of ${total}`;
          // The first batch is the slowest by far.
          const rest = done > given.batchSize ? [`${left} left`] : [];
          const fields = [of, format.rate(numTokens / seconds), ...rest];
          io.progress.update(fields, done / total);
        },
      });
      const task: Task = tasks[name];
      const lines = task.summary(result).map(([what, value]) => [what, shown(value)] as const);
      const time = format.duration((io.now() - started) / 1000);
      const head = several && { task: name };
      tables.push(facts({ ...head, ...Object.fromEntries(lines), device, time }, io.columns));
      results[name] = result;
    }
    const result = results[given.task[0]!]!;
    const comparison = baseline && compared(result, baseline, maxIncrease);
    if (saveBaseline) await regression.writeBaseline(saveBaseline, result);
    const one = { ...result, ...(comparison && { comparison }) };
    print(io, json, several ? { results } : one, () => tables.join("\n\n"));
    if (!comparison) return;
    (json ? io.stderr : io.stdout).write(`${verdict(comparison)}\n`);
    if (comparison.hasRegressed) io.exitCode = 1;
  },
});

function compared(result: TaskResult, baseline: regression.Baseline, maxIncrease = 0) {
  if (result.outcomes !== undefined) return regression.compareAnswers(result, baseline);
  return regression.compareWithBaseline(result, baseline, maxIncrease);
}

function shown(value: string | number): string {
  if (typeof value === "string") return value;
  return (Number.isInteger(value) ? format.integer : format.perplexity)(value);
}

/** One line fit for a CI log. */
function verdict(comparison: ReturnType<typeof compared>): string {
  const word = comparison.hasRegressed ? "REGRESSION" : "OK";
  if ("acc" in comparison) {
    const { acc, baselineAcc, won, lost, pValue } = comparison;
    const change = `${won} won, ${lost} lost, p = ${pValue.toPrecision(2)}`;
    return `${word}: acc ${acc.toPrecision(5)}, baseline ${baselineAcc.toPrecision(5)} (${change})`;
  }
  const { percent, maxIncreasePercent, ...rest } = comparison;
  const [now, then] = [rest.perplexity, rest.baselinePerplexity].map(format.perplexity);
  const change = `${percent < 0 ? "" : "+"}${percent.toFixed(3)}%`;
  return `${word}: perplexity ${now}, baseline ${then} (${change}, allowed +${maxIncreasePercent}%)`;
}
