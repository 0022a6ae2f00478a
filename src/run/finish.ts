// The end of a run: the chosen weights become final/, and are scored for the report.

import { existsSync } from "node:fs";
import { mkdir, rename, rm } from "node:fs/promises";
import { join } from "node:path";
import type { AugmentedModel } from "../augmented/open.ts";
import { invariant } from "../core/errors.ts";
import { openScorer, type WindowLoss } from "../evaluate/scorer.ts";
import type { TemperatureSummary } from "../evaluate/temperatures.ts";
import { writeAdapter } from "../export/adapter.ts";
import { writeModelFolder } from "../export/safetensors.ts";
import type { Source } from "../export/source.ts";
import { flush, temporaryName } from "../formats/atomic.ts";
import { runFiles } from "../formats/run-folder.ts";
import { modelSha256, openSafetensors, readFloats } from "../formats/safetensors.ts";
import type { PerplexityResult } from "../report/report.ts";
import type { LoopState } from "../train/loop.ts";
import { resultOf } from "./evaluate.ts";
import type { FinetuneOptions } from "./finetune.ts";
import { type AdapterBase, restoreTensors, storedTensors } from "./snapshot.ts";

export interface Finished {
  readonly after: { readonly result: PerplexityResult; readonly losses: readonly WindowLoss[] };
  readonly temperatures: readonly TemperatureSummary[];
  /** The step whose weights final/ holds: the last, or the best with early stopping. */
  readonly finalStep: number;
}

export async function finishRun(
  { recipe, runDir, prepared, engine, onEvent }: FinetuneOptions,
  loop: LoopState,
  base: AdapterBase,
): Promise<Finished> {
  const { augmented, tensors, context, evaluation, reportPlan } = prepared;
  const finalStep = recipe.earlyStopping === "off" ? loop.step : loop.bestStep;
  const dir = join(runDir, `step-${String(finalStep).padStart(6, "0")}`);
  invariant(existsSync(dir), `${dir} is gone`);
  await restoreTensors(dir, tensors, { withOptimizer: false });
  const feeds = Object.fromEntries(tensors.map(({ name, values }) => [name, values]));
  const trainable = new Set(tensors.map(({ name }) => name));
  const { batchSize } = recipe;
  const scorer = await openScorer(engine, augmented, {
    batchSize,
    context,
    trainable,
    observe: true,
  });
  const losses = await scorer.score(evaluation.texts, reportPlan.windows, {
    feeds,
    onBatch: ({ windows }) =>
      onEvent({ kind: "scored", phase: "after", windows, of: reportPlan.windows.length }),
  });
  const temperatures = scorer.temperatures();
  await scorer.dispose();
  const sha256 = await writeFinal(join(runDir, runFiles.final), recipe.final, {
    augmented: await withTrained(augmented, dir),
    base: {
      name: base.base_model_name_or_path,
      sha256: base.base_sha256,
      ...(base.base_revision && { revision: base.base_revision }),
    },
    hasTrainedBase: recipe.tune.join() !== "temperatures" || recipe.init === "random",
    folders: [],
  });
  const result = resultOf(losses, reportPlan, evaluation, sha256 ?? base.base_sha256);
  return { after: { result, losses }, temperatures, finalStep };
}

/** The model with a snapshot's tensors in place of those that it was trained from. */
async function withTrained(augmented: AugmentedModel, dir: string): Promise<AugmentedModel> {
  const stored = await storedTensors(dir);
  const weights = new Map(augmented.weights);
  for (const name of augmented.model.weights.keys()) {
    const info = stored.get(name);
    if (info) weights.set(name, info);
  }
  if (!augmented.temperatures) return { ...augmented, weights };
  const values = new Map(augmented.temperatures.values);
  for (const name of values.keys()) {
    const info = stored.get(name);
    if (info) values.set(name, await readFloats(info));
  }
  return { ...augmented, weights, temperatures: { ...augmented.temperatures, values } };
}

/** Builds final/ beside and renames it into place; the SHA-256 of a model's weights. */
async function writeFinal(
  path: string,
  kind: "model" | "adapter",
  source: Source,
): Promise<string | undefined> {
  const building = temporaryName(path);
  await mkdir(building);
  if (kind === "adapter") await writeAdapter(building, source);
  else await writeModelFolder(building, source, {});
  await rm(path, { recursive: true, force: true });
  await rename(building, path);
  await flush(path);
  return kind === "model" ? modelSha256(await openSafetensors(path)) : undefined;
}
