// A run from end to end: before, training, after, report and final model. Killed at any moment, it continues from its
// last checkpoint to the same result.

import { join } from "node:path";
import { UserError } from "../core/errors.ts";
import { numScored } from "../data/windows.ts";
import { pairedDelta } from "../evaluate/results.ts";
import { checkFinite, evaluate } from "../evaluate/evaluation.ts";
import type { RunReport } from "../evaluate/results.ts";
import { writeAdapter } from "../export/model-folder.ts";
import { writeModelFolder } from "../export/model-folder.ts";
import { identityOf, type Provenance, provenanceOf } from "../export/provenance.ts";
import { replaceFolder, writeFileAtomic } from "../files/atomic.ts";
import { readJsonIfSound, writeJson } from "../files/json.ts";
import { runFiles, snapshotDir } from "../files/run-folder.ts";
import { readTemperatures } from "../model/match.ts";
import { openModel, withSnapshot } from "../model/open.ts";
import { recipeToYaml } from "../options/load.ts";
import { changesBase } from "../train/groups.ts";
import { INITIAL_STATE } from "../train/loop.ts";
import { type HeldOut, openHeldOut, type RunAtWork, scoring, train } from "./training.ts";

export type Outcome =
  | { readonly outcome: "finished"; readonly report: RunReport }
  /** The step that was saved; null where the run was before its first or after its last. */
  | { readonly outcome: "interrupted"; readonly step: number | null };

export async function trainAndReport(work: RunAtWork): Promise<Outcome> {
  const { recipe, runDir, parameters, reportPlan, onEvent } = work;
  await writeFileAtomic(join(runDir, runFiles.recipe), recipeToYaml(recipe));
  const own = await identityOf(work.base);
  const baseSha256 = own.sha256!;
  // Temperatures that were there before belong to the base that they were put on.
  const origin: Provenance = work.base.temperatures
    ? await provenanceOf(work.base)
    : { base: own, hasTrainedBase: false };
  const base = origin.hasTrainedBase === false ? origin.base : own;
  const heldOut = await openHeldOut(work);
  // In this order: what is scored before is the base, a checkpoint comes into the tensors after.
  const before = await scoreBase(work, baseSha256, heldOut);
  const trained = await train(work, base, heldOut, before);
  await heldOut.dispose();
  const { outcome, loop } = trained;
  if (outcome === "interrupted")
    return { outcome, step: loop === INITIAL_STATE ? null : loop.step };
  if (outcome === "stopped early")
    onEvent({ kind: "note", text: `stopped early at step ${loop.step}, best at ${loop.bestStep}` });

  const finalStep = recipe.earlyStopping === "off" ? loop.step : loop.bestStep;
  const { result, losses, temperatures } = await finish(work, finalStep, origin);
  const report: RunReport = {
    before: reportPlan.resultOf(before, baseSha256),
    after: result,
    delta: pairedDelta(before, losses),
    parameters,
    temperatures,
    recipe,
    device: work.engine.description,
    steps: loop.step,
    finalStep,
    tokensPerSecond: trained.tokensPerSecond,
    peakRssBytes: process.resourceUsage().maxRSS * 1024,
    elapsedSeconds: trained.elapsedSeconds(),
  };
  await writeJson(join(runDir, runFiles.report), report);
  return { outcome: "finished", report };
}

/** The base's losses on the report's windows, scored once in a run and kept with what they, and the run, depend on. */
async function scoreBase(work: RunAtWork, base: string, heldOut: HeldOut) {
  const { runDir, sha256, reportPlan } = work;
  const path = join(runDir, runFiles.before);
  const inputs = { base, ...sha256 };
  const stored = await readJsonIfSound(path);
  if (stored) {
    const known = (stored["sha256"] ?? {}) as Readonly<Record<string, unknown>>;
    for (const [name, sha256] of Object.entries(inputs))
      if (known[name] !== sha256)
        throw new UserError(`${runDir}: the content of ${name} has changed since the run began`, {
          hint: "bring it back to resume, or start a new run",
        });
    const { nats } = stored;
    if (Array.isArray(nats) && nats.length === reportPlan.windows.length)
      return reportPlan.windows.map((window, i) => {
        return { nats: nats[i] as number, numTokens: numScored([window]) };
      });
  }
  const losses = await heldOut.score("before", reportPlan);
  checkFinite(losses, reportPlan.windows);
  const nats = losses.map((loss) => loss.nats);
  await writeFileAtomic(path, `${JSON.stringify({ sha256: inputs, nats })}\n`);
  return losses;
}

/** Writes a step's weights to final/, and scores it as `ssa eval` does: from the files, so that the report says what they give. */
async function finish(work: RunAtWork, step: number, { base, hasTrainedBase }: Provenance) {
  const { recipe, runDir, reportPlan } = work;
  const path = join(runDir, runFiles.final);
  const isAdapter = recipe.final === "adapter";
  const trained = await withSnapshot(work.opened, snapshotDir(runDir, step));
  const provenance = { base, hasTrainedBase: changesBase(recipe) || hasTrainedBase };
  await replaceFolder(path, (folder) =>
    isAdapter ? writeAdapter(folder, trained, base) : writeModelFolder(folder, trained, provenance),
  );
  const model = isAdapter
    ? { ...work.base, temperatures: await readTemperatures(path, trained.model) }
    : await openModel(path);
  const how = { batchSize: recipe.batchSize, ...scoring(work, "after", reportPlan) };
  return evaluate(work.engine, model, reportPlan, how);
}
