// The folder of a training run: snapshots that are wholly there or not at all, its metrics, its name and its lock.

import { createHash } from "node:crypto";
import { existsSync } from "node:fs";
import { mkdir, readdir, rm, stat } from "node:fs/promises";
import { basename, join } from "node:path";
import { pid } from "node:process";
import { codeOf, invariant, messageOf, UserError } from "../core/errors.ts";
import {
  flush,
  removeFolder,
  replacedSuffix,
  replaceFolder,
  settleReplacement,
  temporaryOwner,
  writeFailure,
} from "./atomic.ts";
import { filterLines } from "./json-lines.ts";
import { isRunning, lockName } from "./lock.ts";
import { isRecord, type JsonObject, readJsonIfSound, writeJson } from "./json.ts";
import { modelFiles, runFiles, snapshotFiles } from "./names.ts";
import { sha256OfFile } from "./safetensors.ts";
import { writeSafetensors, type TensorSource } from "./safetensors-writer.ts";

export { appendLine, readLines } from "./json-lines.ts";
export { runFiles, snapshotFiles } from "./names.ts";
export { lockRun } from "./lock.ts";

/** All that a run needs to go on from a step; kinds without tensors get no file. */
export interface Snapshot {
  readonly step: number;
  readonly tensors: {
    readonly adapter: readonly TensorSource[];
    readonly trained: readonly TensorSource[];
    readonly optimizer: readonly TensorSource[];
  };
  /** JSON. */
  readonly state: unknown;
}

export interface SkippedSnapshot {
  readonly dir: string;
  readonly reason: string;
}

export interface FoundSnapshot {
  readonly dir: string;
  readonly step: number;
  readonly state: unknown;
  /** Later ones that are damaged. */
  readonly skipped: readonly SkippedSnapshot[];
}

const formatVersion = 1;

/** Saves a snapshot as `step-000200` and returns its folder. On failure nothing is left and earlier ones are untouched. */
export async function saveSnapshot(
  runDir: string,
  { step, tensors, state }: Snapshot,
  { adapterConfig }: { readonly adapterConfig: unknown },
): Promise<string> {
  const dir = snapshotDir(runDir, step);
  await replaceFolder(dir, async (folder) => {
    for (const kind of ["adapter", "trained", "optimizer"] as const) {
      if (tensors[kind].length === 0) continue;
      await writeSafetensors(join(folder, snapshotFiles[kind]), tensors[kind]);
    }
    if (tensors.adapter.length > 0)
      await writeJson(join(folder, snapshotFiles.adapterConfig), adapterConfig);
    const files: Record<string, string> = {};
    for (const name of (await readdir(folder)).sort())
      files[name] = await sha256OfFile(join(folder, name));
    const content = { format_version: formatVersion, step, files, state };
    await writeJson(join(folder, snapshotFiles.state), {
      sha256: sha256OfJson(content),
      ...content,
    });
    const metrics = join(runDir, runFiles.metrics);
    if (existsSync(metrics)) await flush(metrics);
  }).catch((error: unknown) => {
    throw writeFailure(dir, error instanceof UserError ? (error.cause ?? error) : error);
  });
  // A run saves in the order of steps, so later ones are the damaged future that it was resumed before.
  for (const later of await listSnapshots(runDir))
    if (later.step > step) await removeFolder(later.dir);
  return dir;
}

/**
 * The last undamaged snapshot, by the checksums in its state.json; undefined where none was ever saved. Throws a
 * UserError where all are damaged, so that no run starts again from nothing unasked.
 */
export async function latestSnapshot(runDir: string): Promise<FoundSnapshot | undefined> {
  const skipped: SkippedSnapshot[] = [];
  for (const { dir, step } of (await listSnapshots(runDir)).reverse()) {
    try {
      return { dir, step, state: await verifiedState(dir, step), skipped };
    } catch (error) {
      skipped.push({ dir, reason: messageOf(error) });
    }
  }
  if (skipped.length === 0) return undefined;
  const reasons = skipped.map(({ dir, reason }) => `${basename(dir)}: ${reason}`).join("; ");
  throw new UserError(`every checkpoint in ${runDir} is damaged (${reasons})`, {
    hint: "delete these folders to start at step 0",
    exitCode: 1,
  });
}

/** Removes all but the last `keepLast` snapshots and those of the steps in `keep`. */
export async function pruneSnapshots(
  runDir: string,
  keepLast: number,
  keep: readonly number[] = [],
): Promise<void> {
  invariant(keepLast >= 1, `keepLast is ${keepLast}`);
  const old = (await listSnapshots(runDir)).slice(0, -keepLast);
  for (const { dir, step } of old) if (!keep.includes(step)) await removeFolder(dir);
}

/** Drops the metrics after the step that a run is resumed from, and a torn last line. */
export async function truncateMetrics(runDir: string, step: number): Promise<void> {
  const isKept = ({ step: at }: JsonObject) => !(typeof at === "number" && at > step);
  await filterLines(join(runDir, runFiles.metrics), isKept);
}

/** Removes what killed writers left behind. Call it with the run locked, before latestSnapshot. */
export async function removeLeftovers(runDir: string): Promise<void> {
  for (const name of await readdir(runDir)) {
    const path = join(runDir, name);
    if (name.endsWith(replacedSuffix))
      await settleReplacement(path.slice(0, -replacedSuffix.length));
    const owner = temporaryOwner(name);
    // A process that is just trying to lock this folder still needs its file; the lock's claims count no more.
    const isTrying = owner !== undefined && owner !== pid && isRunning(owner);
    const isLock = name.startsWith(lockName);
    const isLeft = isLock ? name !== lockName && !isTrying : owner !== undefined;
    if (isLeft) await rm(path, { recursive: true, force: true });
  }
}

/** Whether a folder is a run's; a model folder that ships the recipe it was made with is none. */
export function isRun(folder: string): boolean {
  const [recipe, config] = [runFiles.recipe, modelFiles.config].map((name) => join(folder, name));
  return existsSync(recipe!) && !existsSync(config!);
}

/** The run folder under `checkpointsDir` that was written to last; undefined where there is none. */
export async function newestRun(checkpointsDir: string): Promise<string | undefined> {
  let newest: { readonly dir: string; readonly time: number } | undefined;
  for (const name of await namesIn(checkpointsDir)) {
    const dir = join(checkpointsDir, name);
    if (!isRun(dir)) continue;
    const paths = [dir, join(dir, runFiles.recipe), join(dir, runFiles.metrics)];
    const states = await Promise.all(paths.filter(existsSync).map((path) => stat(path)));
    const time = Math.max(...states.map(({ mtimeMs }) => mtimeMs));
    if (newest === undefined || time > newest.time) newest = { dir, time };
  }
  return newest?.dir;
}

/** Makes the folder `<stem>-<n>` with n one above those that are there, from 1; two processes get two. */
export async function claimRunFolder(checkpointsDir: string, stem: string): Promise<string> {
  const numbers = (await namesIn(checkpointsDir)).map((name) =>
    Number(name.startsWith(`${stem}-`) && /^\d{1,9}$/.exec(name.slice(stem.length + 1))?.[0]),
  );
  const number = Math.max(0, ...numbers.filter(Number.isInteger)) + 1;
  const dir = join(checkpointsDir, `${stem}-${number}`);
  try {
    await mkdir(checkpointsDir, { recursive: true });
    await mkdir(dir);
    return dir;
  } catch (error) {
    if (codeOf(error) === "EEXIST" && existsSync(dir)) return claimRunFolder(checkpointsDir, stem);
    throw writeFailure(dir, error);
  }
}

/** Where a run keeps the snapshot of a step. */
export function snapshotDir(runDir: string, step: number): string {
  return join(runDir, `step-${String(step).padStart(6, "0")}`);
}

/** Whole snapshots by rising step, damaged or not. */
async function listSnapshots(runDir: string): Promise<{ dir: string; step: number }[]> {
  const found: { dir: string; step: number }[] = [];
  for (const name of await namesIn(runDir)) {
    const digits = /^step-(\d{6,})$/.exec(name)?.[1];
    if (digits) found.push({ dir: join(runDir, name), step: Number(digits) });
  }
  return found.sort((a, b) => a.step - b.step);
}

/** The state of a snapshot, or an error whose message is the reason why it cannot be used. */
async function verifiedState(dir: string, step: number): Promise<unknown> {
  const path = join(dir, snapshotFiles.state);
  if (!existsSync(path)) throw new Error(`${snapshotFiles.state} is missing`);
  const { sha256, ...content } = (await readJsonIfSound(path)) ?? {};
  const { format_version: version, files, state } = content;
  if (sha256 !== sha256OfJson(content) || content["step"] !== step || !isRecord(files)) {
    throw new Error(`${snapshotFiles.state} is damaged`);
  }
  if (version !== formatVersion)
    throw new Error(`its format version ${String(version)} is unknown`);
  for (const [name, expected] of Object.entries(files)) {
    if (!existsSync(join(dir, name))) throw new Error(`${name} is missing`);
    if ((await sha256OfFile(join(dir, name))) !== expected) throw new Error(`${name} is damaged`);
  }
  return state;
}

async function namesIn(folder: string): Promise<string[]> {
  return existsSync(folder) ? (await readdir(folder)).sort() : [];
}

function sha256OfJson(value: unknown): string {
  return createHash("sha256").update(JSON.stringify(value)).digest("hex");
}
