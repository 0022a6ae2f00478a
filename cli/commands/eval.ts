// `ssa eval`: perplexity or other tasks of a model on data, with their uncertainty, and the gate of a CI job.

import { UserError } from "../../src/core/errors.ts";
import type { Task } from "../../src/evaluate/evaluation.ts";
import * as regression from "../../src/evaluate/results.ts";
import { tasks } from "../../src/evaluate/tasks/index.ts";
import { evaluationOptions, passkeyOptions } from "../../src/options/evaluation.ts";
import { temperaturesOption } from "../../src/options/schema.ts";
import * as kind from "../../src/options/values.ts";
import { evaluateTasks, type TaskName } from "../../src/run/evaluate.ts";
import { defineCommand } from "../command.ts";
import * as format from "../../src/core/format.ts";
import { checkDealt, places, print } from "../io.ts";

const { maybe, preset, shared, text } = kind;

const TASKS = Object.keys(tasks) as TaskName[];
const someTasks = kind.someOf(TASKS, "names").meta({ alias: "--tasks" });

export const command = defineCommand({
  options: {
    model: shared.model,
    data: maybe(
      text("data"),
      "text to measure on, as of finetune (default: the task's own, if any)",
    ),
    temperatures: temperaturesOption,
    ...evaluationOptions,
    task: preset(someTasks, ["perplexity"], "what to measure"),
    passkeyLengths: passkeyOptions.lengths,
    passkeyDepths: passkeyOptions.depths,
    passkeyTrials: passkeyOptions.trials,
    passkeySeed: passkeyOptions.seed,
    saveBaseline: maybe(text("file"), "write the result for later comparisons"),
    shard: maybe(kind.shard(), "score only every n-th run from the i-th on, as one of n jobs"),
    collect: kind.flag("print what all that --shard scored amounts to; score nothing"),
    out: maybe(text("folder"), "where shards leave what they scored"),
    refresh: shared.refresh,
    rankTimeout: shared.rankTimeout,
    logRanks: shared.logRanks,
  },
  stops: "after this window",
  examples: `Example, a CI job that fails when perplexity rises by more than 0.5 % over a run's:
  $ ssa eval --model checkpoints/gpt2-notes-1/final --data notes.txt --hold-out 0.05 \\
      --baseline checkpoints/gpt2-notes-1/report.json --max-increase 0.5%`,
  async run(values, io, { signal }) {
    const { saveBaseline, baseline, maxIncrease, refresh, json, task: names, ...others } = values;
    const { passkeyLengths: lengths, passkeyDepths: depths, ...rest } = others;
    const { passkeyTrials: trials, passkeySeed: seed, data, ...more } = rest;
    const { shard, collect, out: folder, rankTimeout: _, logRanks: __, ...given } = more;
    checkDealt(more);
    if ((folder !== undefined) !== (shard !== undefined || collect))
      throw new UserError("--shard and --collect need --out, a folder; nothing else takes it");
    // What can be refused is refused before the work.
    if (maxIncrease !== undefined && !baseline)
      throw new UserError("--max-increase needs a --baseline to compare with");
    if (saveBaseline) await regression.checkBaselinePlace(saveBaseline);
    const passkey = { lengths, depths, trials, seed };
    if (!names.includes("passkey") && Object.values(passkey).some((value) => value !== undefined))
      throw new UserError("--passkey-… is of a task that is not asked for", {
        hint: "ask for it: --task passkey",
      });
    const isPart = (given.holdOut ?? given.maxTokens) !== undefined;
    if (isPart && !(data && names.join() === "perplexity"))
      throw new UserError("--hold-out and --max-tokens are of --data and of perplexity alone");
    const several = names.length > 1;
    if (several && (saveBaseline || baseline?.endsWith(".json")))
      throw new UserError("a baseline is of one task", { hint: "name one: --task" });
    // One that has data of its own gets other data only where it is alone.
    const isAlone = (name: TaskName) => !several || !("data" in tasks[name]);
    if (data && !names.some(isAlone))
      throw new UserError("--data is of one task", { hint: "name one, or leave --data out" });
    const [seconds, devices] = [new Map<string, number>(), new Set<string>()];
    let [total, begun, at] = [0, 0, ""];
    const done = await evaluateTasks({
      ...places(io, refresh),
      ...given,
      baseline,
      maxIncrease,
      signal,
      tasks: names.map((name) => ({ name, data: isAlone(name) ? data : undefined })),
      passkey,
      dealt: folder === undefined ? undefined : { folder, shard },
      onPlan: ({ groups }, device, what) => {
        const all = groups.reduce((sum, { windows }) => sum + windows.length, 0);
        total = Math.ceil(all / (shard?.count ?? 1));
        devices.add(device);
        [begun, at] = [io.now(), what];
      },
      onBatch: ({ windows, numTokens }) => {
        const time = (io.now() - begun) / 1000;
        seconds.set(at, time);
        const left = format.duration((time / windows) * (total - windows));
        const of = `${several || baseline ? `${at}, ` : ""}window ${windows} of ${total}`;
        // The first batch is the slowest by far.
        const rest = windows > given.batchSize ? [`${left} left`] : [];
        io.progress.update([of, format.rate(numTokens / time), ...rest], windows / total);
      },
    });
    if (shard)
      return print(io, json, { out: folder, shard }, () => [
        `scored in ${folder}; next: --collect`,
      ]);
    const documents = done.map(({ name, result, comparison }) => {
      return [name, { ...result, ...(comparison && { comparison }) }] as const;
    });
    const document = several ? { results: Object.fromEntries(documents) } : documents[0]![1];
    const about = ({ name, data, result }: (typeof done)[number]) => {
      const task: Task = tasks[name];
      const lines = task.summary(result).map(([what, value]) => [what, shown(value)] as const);
      const device = [...devices].join();
      const time = collect ? "" : format.duration(seconds.get(name) ?? 0);
      const head = { task: several ? name : null, data };
      return { ...head, ...Object.fromEntries(lines), device, time };
    };
    print(io, json, document, () => done.map(about));
    if (saveBaseline) await regression.writeBaseline(saveBaseline, done[0]!.result);
    for (const { name, comparison } of done) {
      if (!comparison) continue;
      const line = `${several ? `${name}: ` : ""}${verdict(comparison)}`;
      (json ? io.stderr : io.stdout).write(`${line}\n`);
      if (comparison.hasRegressed) io.exitCode = 1;
    }
  },
});

function shown(value: string | number): string {
  if (typeof value === "string") return value;
  return (Number.isInteger(value) ? format.integer : format.perplexity)(value);
}

/** One line fit for a CI log. */
function verdict(comparison: regression.ResultComparison): string {
  const word = comparison.hasRegressed ? "REGRESSION" : "OK";
  if ("acc" in comparison) return `${word}: ${answers(comparison)}`;
  const { percent, maxIncreasePercent, interval95, answers: also, ...rest } = comparison;
  const [now, then] = [rest.perplexity, rest.baselinePerplexity].map(format.perplexity);
  const signed = (value: number) => `${value < 0 ? "" : "+"}${value.toFixed(3)}%`;
  const ends = interval95 ? `, 95 % interval ${interval95.map(signed).join(" to ")}` : "";
  const change = `${signed(percent)}${ends}, allowed +${maxIncreasePercent}%`;
  return `${word}: perplexity ${now}, baseline ${then} (${change})${also ? `; ${answers(also)}` : ""}`;
}

function answers({ acc, baselineAcc, won, lost, pValue }: regression.AnswerComparison): string {
  const change = `${won} won, ${lost} lost, p = ${pValue.toPrecision(2)}`;
  return `acc ${acc.toPrecision(5)}, baseline ${baselineAcc.toPrecision(5)} (${change})`;
}
