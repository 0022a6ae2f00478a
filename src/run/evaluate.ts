// An evaluation from names to its results: what `ssa eval` does, without a word.

import { statSync } from "node:fs";
import { unsupported, UserError } from "../core/errors.ts";
import { selectSplit } from "../data/readers/files.ts";
import type { Shard, Window } from "../data/windows.ts";
import { resultOf, scorePlan } from "../evaluate/evaluation.ts";
import type { EvaluateOptions, EvaluationPlan, Task } from "../evaluate/evaluation.ts";
import * as results from "../evaluate/results.ts";
import { differencesOf } from "../evaluate/statistics.ts";
import type { ScoreOptions } from "../evaluate/scorer.ts";
import type { QuantizeOptions, rowOptions } from "../options/common.ts";
import { evaluationShape } from "../options/evaluation.ts";
import { fromFlags, readOptions, type Values } from "../options/values.ts";
import { tasks } from "../evaluate/tasks/index.ts";
import { type Engine, expectDevice } from "../engines/index.ts";
import { quantizationOf } from "../model/blocks.ts";
import { isGguf } from "../model/gguf.ts";
import { openModel, type OpenOptions } from "../model/open.ts";
import type { OpenedModel } from "../model/opened.ts";
import { planBlocks, withBlocks } from "../model/quantize.ts";
import * as where from "../model/places.ts";
import { sharesIn } from "./shards.ts";

export type TaskName = keyof typeof tasks;
type ResultOf<Name extends TaskName> = (typeof tasks)[Name] extends Task<infer R> ? R : never;

type Checked = Partial<Values<typeof evaluationShape>>;
/** `holdOut`: what a run holds out of named data, its validation part, else this share of its end. */
type PlanOptions = EvaluateOptions &
  Partial<Values<typeof rowOptions> & QuantizeOptions> &
  Pick<Checked, "holdOut" | "maxTokens" | "threads">;
type Reported = Partial<where.Places> & Pick<ScoreOptions, "onBatch">;

export interface EvaluateModelOptions<Name extends TaskName> extends Checked, Reported {
  readonly model: string;
  /** What the task measures on by default; perplexity needs it. */
  readonly data?: string | undefined;
  /** What to measure: the perplexity by default. */
  readonly task?: Name;
  readonly temperatures?: OpenOptions["temperatures"];
  readonly mayPack?: EvaluateOptions["mayPack"];
  /** Told what will be scored, on which device, and of which task. */
  readonly onPlan?: (plan: EvaluationPlan, device: string, what: string) => void;
}

interface EvaluateTasksOptions extends Omit<EvaluateModelOptions<TaskName>, "task" | "data"> {
  readonly tasks: readonly { readonly name: TaskName; readonly data?: string | undefined }[];
  /** A folder in which jobs leave their shares of the work: this one its own, or, without a shard, it takes all. */
  readonly dealt?: { readonly folder: string; readonly shard?: Shard | undefined } | undefined;
}

/** Measures a model on data. */
export async function evaluate<Name extends TaskName = "perplexity">(
  options: EvaluateModelOptions<Name>,
): Promise<ResultOf<Name>> {
  const { task: name = "perplexity", data, ...others } = options;
  const [done] = await evaluateTasks({ ...others, tasks: [{ name, data }] });
  return done!.result as ResultOf<Name>;
}

/**
 * Measures a model, which is opened once, on several tasks: all that can be refused is, before the first one begins. One
 * shard of the work has no results.
 */
export async function evaluateTasks(options: EvaluateTasksOptions) {
  const { tasks: asked, dealt, onPlan, onBatch: _, mayPack, temperatures, ...given } = options;
  const places = where.placesOf(given);
  const own = Object.entries(given).filter(([key]) => !Object.hasOwn(places, key));
  const from = fromFlags(Object.fromEntries(own), () => "options");
  const { windows: most, ...checked } = readOptions(evaluationShape, from);
  const { batchSize, device, threads, baseline, maxIncrease = 0, adapter } = checked;
  const windows = most === "all" ? undefined : most;
  const how = { ...checked, windows, ...(mayPack !== undefined && { mayPack }) };
  const { folder, shard } = dealt ?? {};
  const collects = folder !== undefined && !shard;
  const saved = baseline !== undefined && (await isSaved(baseline)) && baseline;
  const base = saved ? await results.readBaseline(saved) : undefined;
  for (const { name, data } of asked) dataOf(name, data);
  // A mistyped name is told before the other one is fetched.
  await where.checkNames(checked.model, ...asked.map(({ data = null }) => data));
  const spec = quantizationOf(checked);
  const inserted = { adapter, temperatures, quantization: spec };
  const model = await openModel(checked.model, { ...where.opening(places), ...inserted });
  const other = baseline && !saved ? await openModel(baseline, where.opening(places)) : undefined;
  if (!collects) expectDevice(device);
  type Plan = Awaited<ReturnType<typeof planTask>>;
  const planned: (readonly [TaskName, Plan, against?: Plan | undefined])[] = [];
  for (const { name, data } of asked) {
    const plan = await planTask(name, model, data, places, how);
    if (checked.maxIncrease !== undefined && !plan.perplexityOf)
      throw new UserError("--max-increase is of perplexity; of answers, chance decides");
    if (base) results.checkComparable(plan.conditions, base);
    const { context } = plan.conditions;
    const against = other && (await planTask(name, other, data, places, { ...how, context }));
    if (against)
      checkSameTokens(plan, against, `${baseline} does not compare with ${checked.model}`);
    planned.push([name, plan, against]);
  }
  // What is collected is computed with no more.
  const measured =
    spec && collects ? planBlocks(model, spec) : await withBlocks(model, spec, places);
  const baselined = other && (await withBlocks(other, null, places));
  const measure = async (opened: OpenedModel, plan: EvaluationPlan, what: string, on?: Engine) => {
    const shares = folder === undefined ? null : await sharesIn(folder, opened, plan, batchSize);
    if (shard && (await shares!.isDone(shard)))
      return places.onNote?.(`shard ${shard.index}/${shard.count} of ${what} is there already`);
    const found = collects ? await shares!.collect() : undefined;
    onPlan?.(plan, found?.devices ?? on!.description, what);
    const scoring = { ...options, batchSize, shard, sumsOnly: true };
    const losses = found?.losses ?? (await scorePlan(on!, opened, plan, scoring)).losses;
    if (shard) return shares!.write(shard, losses, on!.description);
    return { losses, result: await resultOf(opened, plan, losses) };
  };
  const all = async (engine?: Engine) => {
    const done = [];
    for (const [name, plan, against] of planned) {
      const now = await measure(measured, plan, name, engine);
      const whose = `${name} of the baseline`;
      const before = against && (await measure(baselined!, against, whose, engine));
      if (!now) continue;
      const { result, losses } = now;
      const differences = before && differencesOf(before.losses, losses);
      const weight = plan.perplexityOf === "tokens" ? {} : { numTokens: 1 };
      const each = differences?.map((difference) => ({ ...difference, ...weight }));
      const than = before?.result ?? base;
      const comparison = than && {
        ...results.compareResults(result, than, maxIncrease, each),
        ...(before && { baseline: before.result }),
      };
      done.push({ name, data: plan.scored, result, comparison });
    }
    return done;
  };
  return collects ? all() : where.withEngine({ device, threads }, places, all);
}

/** Whether a baseline is a file of a result, not the name of a model. */
const isSaved = async (name: string) =>
  name.endsWith(".json") ||
  (statSync(name, { throwIfNoEntry: false })?.isFile() === true && !(await isGguf(name)));

/** What a task measures on: null where it makes that itself. */
function dataOf(name: TaskName, given?: string): string | null {
  if (!Object.hasOwn(tasks, name))
    throw unsupported(`the task ${JSON.stringify(name)}`, name, Object.keys(tasks));
  const { data = given }: Task = tasks[name];
  if (data === undefined)
    throw new UserError(`${name} needs data to measure on`, { hint: "name it: --data" });
  return data === null ? null : (given ?? data);
}

/** Finds a task's data and chooses what of it is scored. */
export async function planTask(
  task: TaskName,
  model: OpenedModel,
  given: string | undefined,
  places: where.Places,
  { threads = "auto", ...options }: PlanOptions,
): Promise<EvaluationPlan & { readonly scored: string }> {
  const measured: Task = tasks[task];
  const name = dataOf(task, given);
  const { holdOut, maxTokens } = options;
  const needed = holdOut === undefined ? undefined : ["train", "validation"];
  const find = (name: string) => where.findData(name, places, needed, maxTokens !== undefined);
  const data = name === null ? undefined : await find(name);
  const how = { ...options, ...where.reading(places, threads), remake: data?.remake };
  const usual = measured.data?.split("@")[1] ?? "evaluation";
  const asked = holdOut === undefined ? data?.split : "validation";
  const split = data
    ? selectSplit(data, asked ?? (data.splits[usual] ? usual : "evaluation"), holdOut)
    : ({ description: "", format: "txt", files: [] } as const);
  const plan = await measured.plan(model, split, how).finally(() => places.onProgress?.(undefined));
  return { ...plan, scored: split.description };
}

function checkSameTokens(plan: EvaluationPlan, other: EvaluationPlan, refusal: string): void {
  const windowsOf = ({ groups }: EvaluationPlan) => groups.flatMap(({ windows }) => windows);
  const [ours, theirs] = [windowsOf(plan), windowsOf(other)];
  const tokensOf = ({ texts }: EvaluationPlan, { text, start, length }: Window) =>
    texts[text]?.tokens.subarray(start, start + length) ?? [];
  const isSame = ours.every((window, i) => {
    const [own, others] = [tokensOf(plan, window), tokensOf(other, theirs[i] ?? window)];
    return own.length === others.length && own.every((id, at) => id === others[at]);
  });
  const list = isSame ? results.differingConditions(other.conditions, plan.conditions) : [];
  if (isSame && ours.length === theirs.length && list.length === 0) return;
  const why = list.length > 0 ? list.join("; ") : "their tokenizers give other tokens";
  throw new UserError(`${refusal}: ${why}`, {
    hint: "models compare where tokenizer, text and windows are the same; bits per byte are of any",
  });
}
