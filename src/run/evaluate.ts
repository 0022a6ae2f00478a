// An evaluation from names to its result: what `ssa eval` does, without a word.

import { selectSplit } from "../data/readers/files.ts";
import type { Engine } from "../engines/index.ts";
import {
  evaluate as score,
  type EvaluateOptions,
  type EvaluationPlan,
  type Task,
} from "../evaluate/evaluation.ts";
import type { ScoreOptions } from "../evaluate/scorer.ts";
import { tasks } from "../evaluate/tasks/index.ts";
import { type OpenedModel, openModel } from "../model/open.ts";
import { checkNames, findData, opening, placesOf, reading, withEngine } from "../model/places.ts";
import type { Places } from "../model/places.ts";

/** What is evaluated, where, and how its data is read. */
export interface Evaluated extends EvaluateOptions {
  readonly model: string;
  readonly data: string;
  readonly adapter?: string | undefined;
  readonly textColumn?: string;
  readonly device?: string;
  readonly threads?: number | "auto";
}

type TaskName = keyof typeof tasks;
type ResultOf<Name extends TaskName> = (typeof tasks)[Name] extends Task<infer R> ? R : never;

export interface EvaluateModelOptions<Name extends TaskName>
  extends Evaluated, Partial<Places>, Pick<ScoreOptions, "onBatch"> {
  /** What to measure: the perplexity by default. */
  readonly task?: Name;
  readonly batchSize?: number;
}

/** Measures a model on data. */
export function evaluate<Name extends TaskName = "perplexity">(
  options: EvaluateModelOptions<Name>,
): Promise<ResultOf<Name>> {
  const { task = "perplexity", batchSize = 1, onBatch, signal } = options;
  const told = { ...(onBatch && { onBatch }), ...(signal && { signal }) };
  return withEvaluation(
    tasks[task],
    options,
    placesOf(options),
    async ({ engine, opened, plan }) => {
      const { result } = await score(engine, opened, plan, { batchSize, ...told });
      return result as ResultOf<Name>;
    },
  );
}

export interface OpenEvaluation {
  readonly engine: Engine;
  readonly opened: OpenedModel;
  readonly plan: EvaluationPlan;
}

/** Opens the model, chooses what is scored of the data, and starts an engine for `work`. */
export async function withEvaluation<T>(
  task: Task,
  { model, data, adapter, textColumn = "text", device = "auto", ...given }: Evaluated,
  places: Places,
  work: (open: OpenEvaluation) => Promise<T>,
): Promise<T> {
  const { threads = "auto", context, stride, windows, convention } = given;
  // A mistyped name is told before the other one is fetched.
  await checkNames(model, data);
  const opened = await openModel(model, { ...opening(places), adapter });
  const { separator, split, ...files } = await findData(data, places);
  const how = { field: textColumn, separator, context, stride, windows, convention };
  const plan = await task
    .plan(opened, selectSplit(files, split ?? "evaluation"), {
      ...reading(places, threads),
      ...how,
    })
    .finally(() => places.onProgress?.(undefined));
  return withEngine({ device, threads }, places, (engine) => work({ engine, opened, plan }));
}
