// The folder of a training run: snapshots that are wholly there or not at all, its metrics, its name and its lock.

import { createHash } from "node:crypto";
import { existsSync, statSync } from "node:fs";
import { mkdir, readdir, rm } from "node:fs/promises";
import { basename, join } from "node:path";
import { pid } from "node:process";
import { codeOf, invariant, messageOf, UserError } from "../core/errors.ts";
import { isRecord } from "../core/json.ts";
import * as atomic from "./atomic.ts";
import { readJsonIfSound, readLines, writeJson } from "./json.ts";
import { lockName } from "./lock.ts";
import { modelFiles, runFiles, snapshotFiles } from "./names.ts";
import { sha256OfFile, type TensorSource, writeSafetensors } from "./safetensors.ts";

const tensorKinds = ["adapter", "lora", "trained", "optimizer"] as const;
type TensorKind = (typeof tensorKinds)[number];

/** All that a run needs to go on from a step; kinds without tensors get no file. */
export interface Snapshot {
  readonly step: number;
  readonly tensors: Readonly<Partial<Record<TensorKind, readonly TensorSource[]>>>;
  /** JSON. */
  readonly state: unknown;
}

/** Saves a snapshot as `step-000200` and returns its folder. On failure nothing is left and earlier ones are untouched. */
export async function saveSnapshot(
  runDir: string,
  { step, tensors, state }: Snapshot,
  configs: Readonly<Partial<Record<"adapterConfig" | "loraConfig", unknown>>>,
): Promise<string> {
  const dir = snapshotDir(runDir, step);
  await atomic.replaceFolder(dir, async (folder) => {
    for (const kind of tensorKinds) {
      const { [kind]: sources = [] } = tensors;
      const isInserted = kind === "adapter" || kind === "lora";
      const config = isInserted ? configs[`${kind}Config`] : undefined;
      if (sources.length === 0 && !config) continue;
      await writeSafetensors(join(folder, snapshotFiles[kind]), sources);
      if (isInserted) await writeJson(join(folder, snapshotFiles[`${kind}Config`]), config);
    }
    const files: Record<string, string> = {};
    for (const name of await namesIn(folder)) files[name] = await sha256OfFile(join(folder, name));
    const content = { format_version: 1, step, files, state };
    const checked = { sha256: sha256OfJson(content), ...content };
    await writeJson(join(folder, snapshotFiles.state), checked);
    const metrics = join(runDir, runFiles.metrics);
    if (existsSync(metrics)) await atomic.flush(metrics);
  });
  // A run saves in the order of steps, so later ones are the damaged future that it was resumed before.
  for (const later of await listSnapshots(runDir))
    if (later.step > step) await atomic.removeFolder(later.dir);
  return dir;
}

/**
 * The last undamaged snapshot, by the checksums in its state.json, with the later ones that are damaged; undefined where
 * none was ever saved. Throws a UserError where all are damaged, so that no run starts again from nothing unasked.
 */
export async function latestSnapshot(runDir: string) {
  const skipped: { dir: string; reason: string }[] = [];
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
export async function pruneSnapshots(runDir: string, keepLast: number, keep: number[] = []) {
  invariant(keepLast >= 1, `keepLast is ${keepLast}`);
  const old = (await listSnapshots(runDir)).slice(0, -keepLast);
  for (const { dir, step } of old) if (!keep.includes(step)) await atomic.removeFolder(dir);
}

/** Drops the metrics after the step that a run is resumed from, and a torn last line. */
export async function truncateMetrics(runDir: string, step: number): Promise<void> {
  const path = join(runDir, runFiles.metrics);
  const lines = (await readLines(path))
    .filter(({ step: at }) => !(typeof at === "number" && at > step))
    .map((record) => `${JSON.stringify(record)}\n`);
  await atomic.writeFileAtomic(path, lines.join(""));
}

/** Removes what killed writers left behind. Call it with the run locked, before latestSnapshot. */
export async function removeLeftovers(runDir: string): Promise<void> {
  const replaced = atomic.replacedSuffix;
  for (const name of await readdir(runDir)) {
    const path = join(runDir, name);
    if (name.endsWith(replaced)) await atomic.settleReplacement(path.slice(0, -replaced.length));
    const owner = atomic.temporaryOwner(name);
    // A process that is just trying to lock this folder still needs its file; the lock's claims count no more.
    const isTrying = owner !== undefined && owner !== pid && atomic.isRunning(owner);
    const isLock = name.startsWith(lockName);
    const isLeft = isLock ? name !== lockName && !isTrying : owner !== undefined;
    if (isLeft) await rm(path, { recursive: true, force: true });
  }
}

/** Whether a folder is a run's; a model folder that ships the recipe it was made with is none. */
export const isRun = (folder: string): boolean =>
  existsSync(join(folder, runFiles.recipe)) && !existsSync(join(folder, modelFiles.config));

/** The run folder under `checkpointsDir` that was written to last; undefined where there is none. */
export async function newestRun(checkpointsDir: string): Promise<string | undefined> {
  const folders = (await namesIn(checkpointsDir)).map((name) => join(checkpointsDir, name));
  return folders.filter(isRun).sort((a, b) => writtenAt(b) - writtenAt(a))[0];
}

/** When a run was written to last, milliseconds. */
export function writtenAt(dir: string): number {
  const paths = [dir, join(dir, runFiles.recipe), join(dir, runFiles.metrics)];
  return Math.max(...paths.map((path) => statSync(path, { throwIfNoEntry: false })?.mtimeMs ?? 0));
}

/** The run folders in a folder, and in its folders that are none, as those of a comparison; itself, if it is one. */
export async function runsIn(folder: string, depth = 2): Promise<string[]> {
  if (atomic.temporaryOwner(folder) !== undefined) return []; // half removed
  if (isRun(folder)) return [folder];
  const entries = depth > 0 ? await readdir(folder, { withFileTypes: true }) : [];
  const folders = entries.filter((entry) => entry.isDirectory()).map(({ name }) => name);
  // One that may not be read hides no other.
  const within = (name: string) => runsIn(join(folder, name), depth - 1).catch(() => []);
  const found = folders.sort().map(within);
  return (await Promise.all(found)).flat();
}

/** Makes the folder `<stem>-<n>` with n one above those that are there, from 1; two processes get two. */
export async function claimRunFolder(checkpointsDir: string, stem: string): Promise<string> {
  const ours = (await namesIn(checkpointsDir)).filter((name) => name.startsWith(`${stem}-`));
  const ends = ours.map((name) => name.slice(stem.length + 1));
  const numbers = ends.filter((end) => /^\d{1,9}$/.test(end)).map(Number);
  const dir = join(checkpointsDir, `${stem}-${Math.max(0, ...numbers) + 1}`);
  try {
    await atomic.makeFolder(checkpointsDir);
    await mkdir(dir);
    return dir;
  } catch (error) {
    if (codeOf(error) === "EEXIST" && existsSync(dir)) return claimRunFolder(checkpointsDir, stem);
    throw atomic.writeFailure(dir, error);
  }
}

export const snapshotDir = (runDir: string, step: number): string =>
  join(runDir, `step-${String(step).padStart(6, "0")}`);

/** Whole snapshots by rising step, damaged or not. */
async function listSnapshots(runDir: string): Promise<{ dir: string; step: number }[]> {
  const names = (await namesIn(runDir)).filter((name) => /^step-\d{6,}$/.test(name));
  const found = names.map((name) => ({ dir: join(runDir, name), step: Number(name.slice(5)) }));
  return found.sort((a, b) => a.step - b.step);
}

/** The state of a snapshot, or an error whose message is the reason why it cannot be used. */
async function verifiedState(dir: string, step: number): Promise<unknown> {
  const damaged = (name: string) =>
    new Error(`${name} is ${existsSync(join(dir, name)) ? "damaged" : "missing"}`);
  const { sha256, ...content } = (await readJsonIfSound(join(dir, snapshotFiles.state))) ?? {};
  const { format_version: version, files, state } = content;
  if (sha256 !== sha256OfJson(content) || content["step"] !== step || !isRecord(files))
    throw damaged(snapshotFiles.state);
  if (version !== 1) throw new Error(`its format version ${String(version)} is unknown`);
  for (const [name, expected] of Object.entries(files))
    if ((await sha256OfFile(join(dir, name)).catch(() => "")) !== expected) throw damaged(name);
  return state;
}

const namesIn = async (folder: string): Promise<string[]> =>
  existsSync(folder) ? (await readdir(folder)).sort() : [];

const sha256OfJson = (value: unknown): string =>
  createHash("sha256").update(JSON.stringify(value)).digest("hex");
