// The end of a run: the chosen weights become final/, and are scored for the report.

import { join } from "node:path";
import { evaluate } from "../evaluate/evaluation.ts";
import type { PerplexityResult } from "../evaluate/results.ts";
import type { WindowLoss } from "../evaluate/scorer.ts";
import type { TemperatureSummary } from "../evaluate/scorer.ts";
import { writeAdapter, writeModelFolder } from "../export/model-folder.ts";
import type { Provenance } from "../export/provenance.ts";
import { replaceFolder } from "../files/atomic.ts";
import { runFiles, snapshotDir } from "../files/run-folder.ts";
import { openModel, readTemperatures, withSnapshot } from "../model/open.ts";
import { changesBase } from "../train/groups.ts";
import type { LoopState } from "../train/loop.ts";
import type { FinetuneOptions } from "./finetune.ts";

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
  { base, hasTrainedBase }: Provenance,
): Promise<Finished> {
  const { reportPlan } = prepared;
  const finalStep = recipe.earlyStopping === "off" ? loop.step : loop.bestStep;
  const path = join(runDir, runFiles.final);
  const trained = await withSnapshot(prepared.opened, snapshotDir(runDir, finalStep));
  const isMore = changesBase(recipe);
  await replaceFolder(path, (folder) =>
    recipe.final === "adapter"
      ? writeAdapter(folder, trained, base)
      : writeModelFolder(folder, trained, { base, hasTrainedBase: isMore || hasTrainedBase }),
  );
  const model =
    recipe.final === "adapter"
      ? { ...prepared.base, temperatures: await readTemperatures(path, trained.model) }
      : await openModel(path);
  const { result, ...rest } = await evaluate(engine, model, reportPlan, {
    batchSize: recipe.batchSize,
    signal,
    onBatch: ({ windows }) =>
      onEvent({ kind: "scored", phase: "after", windows, of: reportPlan.windows.length }),
  });
  return { after: result, ...rest, finalStep };
}
