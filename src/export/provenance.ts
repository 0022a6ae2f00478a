// Where a model comes from: its base, whether more than temperatures was trained on it, and the run that did.

import { existsSync } from "node:fs";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { type RunReport, readReport } from "../evaluate/results.ts";
import { frontMatterOf } from "../files/card.ts";
import { adapterFiles, modelFiles, snapshotFiles } from "../files/names.ts";
import { modelSha256 } from "../files/safetensors.ts";
import { type InsertionKind, insertionsOf } from "../insertions/kinds.ts";
import { basesIn, recordedBase } from "../model/open.ts";
import { BASE_QUANTIZED, BASE_SHA256 } from "../model/opened.ts";
import type { BaseIdentity, OpenedModel } from "../model/opened.ts";
import { changesBase } from "../train/groups.ts";

export interface Provenance {
  /** The model that temperatures were put on (or that was opened, where it has none). */
  readonly base: BaseIdentity;
  /** Whether training changed anything but the temperatures; undefined where no record of it is left. */
  readonly hasTrainedBase: boolean | undefined;
  /** What was inserted and has become part of the weights. */
  readonly folded?: readonly InsertionKind[];
  /** Of the run that made it. */
  readonly report?: RunReport | undefined;
}

/** Keys of a checkpoint's metadata that say what it was made from. */
export const provenanceKeys = {
  name: "ssa_base_model",
  revision: "ssa_base_revision",
  sha256: BASE_SHA256,
  quantized: BASE_QUANTIZED,
  hasTrainedBase: "ssa_trained_base",
  licence: "ssa_base_license",
} as const;

/** From an adapter's config or the weights' own metadata, else the run's report; a plain model is its own base. */
export async function provenanceOf(opened: OpenedModel): Promise<Provenance> {
  const { run, adapter, checkpoint } = opened;
  const report = run === undefined ? undefined : await readReport(run);
  if (adapter !== undefined) {
    const hasTrainedBase = existsSync(join(adapter, snapshotFiles.trained));
    const recorded = Object.assign({}, ...(await basesIn(adapter))) as BaseIdentity;
    const own = hasTrainedBase || recorded.sha256 ? {} : await identityOf(opened);
    return { base: { ...own, ...recorded }, hasTrainedBase, report };
  }
  const { metadata } = checkpoint;
  const isAugmented = insertionsOf(opened).length > 0;
  // What the folder knows nothing of was put in as it was opened.
  if (isAugmented && !existsSync(join(opened.folder, adapterFiles.temperatures.config)))
    return { base: await identityOf(opened), hasTrainedBase: false };
  if (provenanceKeys.name in metadata) {
    const trained = metadata[provenanceKeys.hasTrainedBase];
    const hasTrainedBase = trained === undefined ? undefined : trained === "true";
    const { name, revision, sha256 } = provenanceKeys;
    const base = recordedBase(metadata, { name, revision, sha256 });
    return { base, hasTrainedBase, report };
  }
  if (report) {
    const base = { name: report.recipe.base, sha256: report.before.modelSha256 };
    return { base, hasTrainedBase: changesBase(report.recipe), report };
  }
  if (isAugmented) return { base: {}, hasTrainedBase: undefined };
  return { base: await identityOf(opened), hasTrainedBase: false };
}

/** A plain model: its name (its id and commit where it is a snapshot of the hub's cache) and checksum. */
export async function identityOf({ name, folder, checkpoint }: OpenedModel): Promise<BaseIdentity> {
  const [, id, revision] =
    /[\\/]models--([^\\/]+)[\\/]snapshots[\\/]([0-9a-f]{40})$/.exec(folder) ?? [];
  const sha256 = checkpoint.files.length > 0 ? await modelSha256(checkpoint) : "random";
  return id && revision ? { name: id.replaceAll("--", "/"), revision, sha256 } : { name, sha256 };
}

/** The `license*` lines of the front matter of the base's model card; none where it is not at hand. */
export async function licenceOf({ folder, checkpoint }: OpenedModel): Promise<string[]> {
  const recorded = checkpoint.metadata[provenanceKeys.licence];
  const card = recorded ?? (await readFile(join(folder, modelFiles.card), "utf8").catch(() => ""));
  const front = recorded ?? frontMatterOf(card);
  return front.split(/\r?\n/).filter((line) => /^license(_name|_link)?:\s*[^\s|>[]/.test(line));
}
