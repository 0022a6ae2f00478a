// What is to be exported, and where it comes from: a model folder, an adapter on its base, or a training run.

import { existsSync } from "node:fs";
import { readFile } from "node:fs/promises";
import { basename, dirname, join, resolve } from "node:path";
import { UserError } from "../core/errors.ts";
import {
  ADAPTER_CONFIG,
  ADAPTER_WEIGHTS,
  type OpenedModel,
  openModel,
  type OpenOptions,
  readJson,
} from "../model/open.ts";
import { runFiles, snapshotFiles } from "../files/run-folder.ts";
import { isRecord } from "../files/safetensors-header.ts";
import { modelSha256 } from "../files/safetensors.ts";

/** The model that temperatures were put on (or that was opened, where it has none). */
export interface BaseIdentity {
  /** A Hugging Face id or a path. */
  readonly name?: string;
  readonly revision?: string;
  readonly sha256?: string;
}

export interface Source {
  readonly opened: OpenedModel;
  readonly base: BaseIdentity;
  /** Whether training changed anything but the temperatures; undefined where no record of it is left. */
  readonly hasTrainedBase: boolean | undefined;
  /** Whether what was inserted has become part of the weights. */
  readonly isFolded?: boolean;
  /** The run's report.json. */
  readonly report?: Readonly<Record<string, unknown>>;
  /** The adapter's folder, where the temperatures are from one. */
  readonly adapter?: string;
  /** Folders that were read. */
  readonly folders: readonly string[];
}

export type SourceOptions = Pick<OpenOptions, "adapter" | "resolveBase">;

/** Keys of a checkpoint's metadata that say what it was made from. */
export const provenanceKeys = {
  name: "ssa_base_model",
  revision: "ssa_base_revision",
  sha256: "ssa_base_sha256",
  hasTrainedBase: "ssa_trained_base",
  licence: "ssa_base_license",
} as const;

/** Opens a model folder, an adapter or a run folder; refuses an adapter whose base is another. */
export async function openSource(path: string, options: SourceOptions = {}): Promise<Source> {
  const runFolder = runOf(path);
  const folder = runFolder ? join(runFolder, runFiles.final) : path;
  if (!existsSync(folder))
    throw new UserError(
      runFolder ? `the run ${runFolder} has no ${runFiles.final}/` : `there is no folder "${path}"`,
      runFolder ? { hint: `finish it: ssa finetune --resume --out ${runFolder}` } : {},
    );
  const report = runFolder ? await readReport(runFolder) : undefined;
  const isAdapter =
    !existsSync(join(folder, "config.json")) && existsSync(join(folder, ADAPTER_WEIGHTS));
  const adapter = options.adapter ?? (isAdapter ? folder : undefined);
  if (adapter) refuseSnapshotOfMore(adapter);
  const opened = await openModel(folder, options);
  const provenance = adapter
    ? await adapterProvenance(adapter, opened)
    : await modelProvenance(opened, report);
  return {
    opened,
    ...provenance,
    ...(report && { report }),
    ...(adapter && { adapter }),
    folders: [resolve(path), opened.folder, ...(adapter ? [resolve(adapter)] : [])],
  };
}

/** The run folder that a path names, directly or by its final/. */
function runOf(path: string): string | undefined {
  const isRun = (folder: string) =>
    existsSync(join(folder, runFiles.recipe)) && !existsSync(join(folder, "config.json"));
  const parent = dirname(resolve(path));
  if (isRun(path)) return path;
  return basename(resolve(path)) === runFiles.final && isRun(parent) ? parent : undefined;
}

async function readReport(runFolder: string) {
  const path = join(runFolder, runFiles.report);
  return existsSync(path) ? readJson(path) : undefined;
}

/** A run's snapshot may hold more than temperatures, which an adapter cannot say. */
function refuseSnapshotOfMore(adapter: string): void {
  if (existsSync(join(adapter, snapshotFiles.trained)))
    throw new UserError(`${adapter} belongs to a run that trained more than temperatures`, {
      hint: "name the run's folder as --model: its final/ has all that was trained",
    });
}

type Provenance = Pick<Source, "base" | "hasTrainedBase">;

async function adapterProvenance(
  adapter: string,
  { folder, checkpoint }: OpenedModel,
): Promise<Provenance> {
  const config = await readJson(join(adapter, ADAPTER_CONFIG));
  const { base_model_name_or_path: name, base_revision: revision } = config;
  const sha256 = await modelSha256(checkpoint);
  const base = { ...folderIdentity(folder), ...known({ name, revision }), sha256 };
  return { base, hasTrainedBase: false };
}

/** From what the weights' own metadata says, else the run's report; a plain model is its own base. */
async function modelProvenance(
  { folder, checkpoint, temperatures }: OpenedModel,
  report: Source["report"],
): Promise<Provenance> {
  const { metadata } = checkpoint;
  const { name, revision, sha256, hasTrainedBase } = provenanceKeys;
  if (name in metadata)
    return {
      base: known({
        name: metadata[name],
        revision: metadata[revision],
        sha256: metadata[sha256],
      }),
      hasTrainedBase: hasTrainedBase in metadata ? metadata[hasTrainedBase] === "true" : undefined,
    };
  if (report) return reportProvenance(report);
  if (temperatures) return { base: {}, hasTrainedBase: undefined };
  const base = { ...folderIdentity(folder), sha256: await modelSha256(checkpoint) };
  return { base, hasTrainedBase: false };
}

function reportProvenance(report: Readonly<Record<string, unknown>>): Provenance {
  const { base, tune, init } = record(report["recipe"]);
  const { modelSha256: sha256 } = record(report["before"]);
  const isTemperaturesAlone =
    Array.isArray(tune) && tune.join() === "temperatures" && init !== "random";
  return { base: known({ name: base, sha256 }), hasTrainedBase: !isTemperaturesAlone };
}

/** A folder's path, or the id and commit where it is a snapshot of the hub's cache. */
function folderIdentity(folder: string): BaseIdentity {
  const [, id, revision] =
    /[\\/]models--([^\\/]+)[\\/]snapshots[\\/]([0-9a-f]{40})$/.exec(folder) ?? [];
  return id && revision ? { name: id.replaceAll("--", "/"), revision } : { name: folder };
}

/** The fields that have a value. */
function known(fields: Readonly<Record<string, unknown>>): BaseIdentity {
  const isKnown = (value: unknown) => typeof value === "string" && value !== "";
  return Object.fromEntries(Object.entries(fields).filter(([, value]) => isKnown(value)));
}

/** A nested JSON object; empty where there is none. */
export const record = (value: unknown) => (isRecord(value) ? value : {});

/** The `license*` lines of the front matter of the base's model card; none where it is not at hand. */
export async function licenceOf({ folder, checkpoint }: OpenedModel): Promise<string[]> {
  const recorded = checkpoint.metadata[provenanceKeys.licence];
  const card = recorded ?? (await readFile(join(folder, "README.md"), "utf8").catch(() => ""));
  const front = recorded ?? /^---\r?\n([^]*?)\r?\n---/.exec(card)?.[1] ?? "";
  return front.split(/\r?\n/).filter((line) => /^license(_name|_link)?:\s*[^\s|>[]/.test(line));
}
