// An evaluation from names to its result: what `ssa eval` does, without a word.

import { selectSplit } from "../data/readers/files.ts";
import { openEngine } from "../engines/index.ts";
import { evaluate as score, type EvaluateOptions, type Task } from "../evaluate/evaluation.ts";
import type { ScoreOptions } from "../evaluate/scorer.ts";
import { tasks } from "../evaluate/tasks/index.ts";
import { openModel } from "../model/open.ts";
import {
  checkData,
  checkModel,
  findData,
  opening,
  type PlaceOptions,
  type Places,
  placesOf,
  reading,
} from "../model/places.ts";

/** What is evaluated, and how its data is read. */
export interface Evaluated extends EvaluateOptions {
  readonly model: string;
  readonly data: string;
  readonly adapter?: string | undefined;
  readonly textColumn?: string;
  readonly threads?: number | "auto";
}

export type TaskName = keyof typeof tasks;
type ResultOf<T> = T extends Task<infer Result> ? Result : never;

export interface EvaluateModelOptions<Name extends TaskName>
  extends Evaluated, PlaceOptions, Pick<ScoreOptions, "onBatch"> {
  /** What to measure: the perplexity by default. */
  readonly task?: Name;
  readonly device?: string;
  readonly batchSize?: number;
}

/** Measures a model on data. */
export async function evaluate<Name extends TaskName = "perplexity">(
  options: EvaluateModelOptions<Name>,
): Promise<ResultOf<(typeof tasks)[Name]>> {
  const { task = "perplexity", device = "auto", batchSize = 1, threads = "auto" } = options;
  const { hub, cacheDir, onNote, onProgress, onChoice, onBatch, signal } = options;
  const places = placesOf({ hub, cacheDir, onNote, onProgress, onChoice, signal });
  const { opened, plan } = await planEvaluation(tasks[task], options, places);
  const engine = await openEngine(device, { threads: threads === "auto" ? 0 : threads, onChoice });
  try {
    const { result } = await score(engine, opened, plan, {
      batchSize,
      ...(onBatch && { onBatch }),
      ...(signal && { signal }),
    });
    return result as ResultOf<(typeof tasks)[Name]>;
  } finally {
    await engine.dispose();
  }
}

/** The model, and what is scored of the data. */
export async function planEvaluation(task: Task, given: Evaluated, places: Places) {
  const { adapter, textColumn = "text", threads = "auto" } = given;
  const { context, stride, windows, convention } = given;
  // A mistyped name is told before the other one is fetched.
  checkModel(given.model);
  await checkData(given.data);
  const opened = await openModel(given.model, { ...opening(places), adapter });
  const data = await findData(given.data, places);
  const plan = await task
    .plan(opened, selectSplit(data, data.split ?? "evaluation"), {
      ...reading(places, threads),
      field: textColumn,
      separator: data.separator,
      context,
      stride,
      windows,
      convention,
    })
    .finally(() => places.onProgress?.(undefined));
  return { opened, plan };
}
