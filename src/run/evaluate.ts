// An evaluation from names to its result: what `ssa eval` does, without a word.

import { UserError } from "../core/errors.ts";
import { selectSplit } from "../data/readers/files.ts";
import {
  evaluate as score,
  type EvaluateOptions,
  type EvaluationPlan,
  type Task,
} from "../evaluate/evaluation.ts";
import type { ScoreOptions } from "../evaluate/scorer.ts";
import { rowOptions, rowsOf } from "../options/rows.ts";
import type { Values } from "../options/values.ts";
import { tasks } from "../evaluate/tasks/index.ts";
import { openModel, type OpenOptions } from "../model/open.ts";
import { checkNames, findData, opening, placesOf, reading, withEngine } from "../model/places.ts";
import type { Places } from "../model/places.ts";

type TaskName = keyof typeof tasks;
type ResultOf<Name extends TaskName> = (typeof tasks)[Name] extends Task<infer R> ? R : never;

export interface EvaluateModelOptions<Name extends TaskName>
  extends
    EvaluateOptions,
    Partial<Places>,
    Partial<Values<typeof rowOptions>>,
    Pick<ScoreOptions, "onBatch"> {
  readonly model: string;
  /** What the task measures on by default; perplexity needs it. */
  readonly data?: string | undefined;
  /** What to measure: the perplexity by default. */
  readonly task?: Name;
  readonly adapter?: string | undefined;
  readonly temperatures?: OpenOptions["temperatures"];
  readonly device?: string;
  readonly threads?: number | "auto";
  readonly batchSize?: number;
  /** Told what will be scored, and on which device. */
  readonly onPlan?: (plan: EvaluationPlan, device: string) => void;
}

/** Measures a model on data. */
export async function evaluate<Name extends TaskName = "perplexity">(
  options: EvaluateModelOptions<Name>,
): Promise<ResultOf<Name>> {
  const { task = "perplexity", batchSize = 1 } = options;
  const { device = "auto", threads = "auto", adapter, temperatures, onPlan } = options;
  const places = placesOf(options);
  const measured: Task = tasks[task];
  const { data: name = measured.data } = options;
  if (name === undefined)
    throw new UserError(`${task} needs data to measure on`, { hint: "name it: --data" });
  // A mistyped name is told before the other one is fetched.
  await checkNames(options.model, name);
  const model = await openModel(options.model, { ...opening(places), adapter, temperatures });
  const data = await findData(name, places);
  const { context, stride, windows, convention } = options;
  const read = { ...reading(places, threads), ...rowsOf(options), remake: data.remake };
  const usual = measured.data?.split("@")[1] ?? "evaluation";
  const split = selectSplit(data, data.split ?? (data.splits[usual] ? usual : "evaluation"));
  const plan = await measured
    .plan(model, split, { ...read, context, stride, windows, convention })
    .finally(() => places.onProgress?.(undefined));
  return withEngine({ device, threads }, places, async (engine) => {
    onPlan?.(plan, engine.description);
    const { result } = await score(engine, model, plan, { ...options, batchSize });
    return result as ResultOf<Name>;
  });
}
