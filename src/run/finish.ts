// The end of a run: the chosen weights become final/, and are scored for the report.

import { join } from "node:path";
import { type OpenedModel, openModel } from "../model/open.ts";
import type { WindowLoss } from "../evaluate/scorer.ts";
import type { TemperatureSummary } from "../evaluate/temperature-summary.ts";
import { writeAdapter } from "../export/adapter.ts";
import { writeModelFolder } from "../export/model-folder.ts";
import type { Source } from "../export/source.ts";
import { replaceFolder } from "../files/atomic.ts";
import { runFiles, snapshotDir } from "../files/run-folder.ts";
import { readFloats } from "../files/safetensors.ts";
import type { PerplexityResult } from "../evaluate/results.ts";
import { changesBase } from "../train/groups.ts";
import type { LoopState } from "../train/loop.ts";
import { evaluate } from "../evaluate/evaluation.ts";
import type { FinetuneOptions } from "./finetune.ts";
import { type AdapterBase, storedTensors } from "../train/snapshot.ts";

export interface Finished {
  readonly after: PerplexityResult;
  readonly losses: readonly WindowLoss[];
  readonly temperatures: readonly TemperatureSummary[];
  /** The step whose weights final/ holds: the last, or the best with early stopping. */
  readonly finalStep: number;
}

/** Writes final/ and scores it as `ssa eval` does: from the files, so that the report states what they give. */
export async function finishRun(
  { recipe, runDir, prepared, engine, onEvent, signal }: FinetuneOptions,
  loop: LoopState,
  base: AdapterBase,
): Promise<Finished> {
  const { opened, evaluation, reportPlan } = prepared;
  const finalStep = recipe.earlyStopping === "off" ? loop.step : loop.bestStep;
  const path = join(runDir, runFiles.final);
  const source: Source = {
    opened: await withTrained(opened, snapshotDir(runDir, finalStep)),
    base: {
      name: base.base_model_name_or_path,
      sha256: base.base_sha256,
      ...(base.base_revision && { revision: base.base_revision }),
    },
    hasTrainedBase: changesBase(recipe),
    folders: [],
  };
  await replaceFolder(path, (folder) =>
    recipe.final === "adapter"
      ? writeAdapter(folder, source)
      : writeModelFolder(folder, source, {}),
  );
  const model =
    recipe.final === "adapter"
      ? await openModel(opened.folder, { adapter: path })
      : await openModel(path);
  const { result, ...rest } = await evaluate(engine, model, evaluation, reportPlan, {
    batchSize: recipe.batchSize,
    signal,
    onBatch: ({ windows }) =>
      onEvent({ kind: "scored", phase: "after", windows, of: reportPlan.windows.length }),
  });
  return { after: result, ...rest, finalStep };
}

/** The model with a snapshot's tensors in place of those that it was trained from. */
async function withTrained(opened: OpenedModel, dir: string): Promise<OpenedModel> {
  const stored = await storedTensors(dir);
  const weights = new Map(opened.weights);
  for (const name of opened.model.weights.keys()) {
    const info = stored.get(name);
    if (info) weights.set(name, info);
  }
  if (!opened.temperatures) return { ...opened, weights };
  const values = new Map(opened.temperatures.values);
  for (const name of values.keys()) {
    const info = stored.get(name);
    if (info) values.set(name, await readFloats(info));
  }
  return { ...opened, weights, temperatures: { ...opened.temperatures, values } };
}
