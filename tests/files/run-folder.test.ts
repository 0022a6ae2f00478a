// Run folders: snapshots are whole or skipped, metrics lose at most a torn line, names of runs.

import assert from "node:assert/strict";
import {
  appendFile,
  mkdir,
  readdir,
  readFile,
  rm,
  truncate,
  utimes,
  writeFile,
} from "node:fs/promises";
import { basename, join } from "node:path";
import { test } from "node:test";
import { UserError } from "../../src/core/errors.ts";
import {
  latestSnapshot,
  newestRun,
  claimRunFolder,
  pruneSnapshots,
  removeLeftovers,
  saveSnapshot,
  truncateMetrics,
  type Snapshot,
} from "../../src/files/run-folder.ts";
import { appendLine, readLines } from "../../src/files/json.ts";
import { runFiles } from "../../src/files/names.ts";
import { openSafetensors, readFloats, type TensorSource } from "../../src/files/safetensors.ts";
import { temporaryFolder } from "../helpers.ts";
import { float32Bytes, folderOf } from "./safetensors-files.ts";

function scalar(name: string, value: number): TensorSource {
  return { name, dtype: "F32", shape: [], data: float32Bytes(value) };
}

function snapshotOf(step: number, state: unknown = { step }): Snapshot {
  const tensors = { adapter: [scalar("a", step)], trained: [], optimizer: [scalar("m", -step)] };
  return { step, tensors, state };
}

async function save(runDir: string, ...steps: readonly number[]): Promise<void> {
  for (const step of steps) {
    await saveSnapshot(runDir, snapshotOf(step), { adapterConfig: { format_version: 1 } });
  }
}

async function snapshotsIn(runDir: string): Promise<string[]> {
  return (await readdir(runDir)).sort();
}

test("a snapshot holds its tensors, its configuration and its state, and is found again", async (t) => {
  const runDir = await temporaryFolder(t);
  assert.equal(await latestSnapshot(runDir), undefined);
  await save(runDir, 50);
  const state = { cursor: [3, 0.1], "2": -1e-300, "1": null, text: "µ" };
  const dir = await saveSnapshot(runDir, snapshotOf(200, state), {
    adapterConfig: { format_version: 1 },
  });
  assert.equal(dir, join(runDir, "step-000200"));
  assert.deepEqual(await snapshotsIn(dir), [
    "optimizer.safetensors",
    "ssa_adapter.safetensors",
    "ssa_config.json",
    "state.json",
  ]);
  assert.deepEqual(JSON.parse(await readFile(join(dir, "ssa_config.json"), "utf8")), {
    format_version: 1,
  });
  const { tensors } = await openSafetensors(join(dir, "optimizer.safetensors"));
  assert.deepEqual([...(await readFloats(tensors.get("m")!))], [-200]);
  assert.deepEqual(await latestSnapshot(runDir), { dir, step: 200, state, skipped: [] });
});

const damages: readonly [file: string, damage: (path: string) => Promise<void>, reason: string][] =
  [
    ["optimizer.safetensors", (path) => truncate(path, 10), "optimizer.safetensors is damaged"],
    ["optimizer.safetensors", (path) => appendFile(path, "x"), "optimizer.safetensors is damaged"],
    ["ssa_adapter.safetensors", (path) => rm(path), "ssa_adapter.safetensors is missing"],
    ["ssa_config.json", (path) => writeFile(path, "{}"), "ssa_config.json is damaged"],
    ["state.json", (path) => truncate(path, 100), "state.json is damaged"],
    ["state.json", (path) => truncate(path, 0), "state.json is damaged"],
    ["state.json", (path) => writeFile(path, "null"), "state.json is damaged"],
    ["state.json", (path) => rm(path), "state.json is missing"],
    ["state.json", changeState, "state.json is damaged"],
  ];

/** One digit of the state, which still is JSON. */
async function changeState(path: string): Promise<void> {
  const text = await readFile(path, "utf8");
  await writeFile(path, text.replace('"state": {\n    "step": 3', '"state": {\n    "step": 4'));
}

test("a damaged snapshot is skipped with the reason and the previous one used", async (t) => {
  for (const [file, damage, reason] of damages) {
    const runDir = await temporaryFolder(t);
    await save(runDir, 1, 2, 3);
    await damage(join(runDir, "step-000003", file));
    const found = await latestSnapshot(runDir);
    assert.equal(found?.step, 2);
    assert.deepEqual(found.skipped, [{ dir: join(runDir, "step-000003"), reason }]);
  }
});

test("when every snapshot is damaged the run does not silently start again", async (t) => {
  const runDir = await temporaryFolder(t);
  await save(runDir, 1, 2);
  for (const step of [1, 2]) await truncate(join(runDir, `step-00000${step}`, "state.json"), 3);
  await assert.rejects(latestSnapshot(runDir), (error) => {
    assert.ok(error instanceof UserError && error.exitCode === 1);
    assert.match(
      error.message,
      /every checkpoint in .* is damaged \(step-000002: state\.json is damaged; step-000001/,
    );
    return true;
  });
});

test("a save replaces its own step and removes the damaged future", async (t) => {
  const runDir = await temporaryFolder(t);
  await save(runDir, 1, 2, 3);
  await saveSnapshot(runDir, snapshotOf(2, "again"), { adapterConfig: {} });
  assert.deepEqual(await snapshotsIn(runDir), ["step-000001", "step-000002"]);
  assert.equal((await latestSnapshot(runDir))?.state, "again");
});

test("pruning keeps the last ones and those asked for", async (t) => {
  const runDir = await temporaryFolder(t);
  await save(runDir, 1, 2, 3, 999_999, 1_000_000);
  await pruneSnapshots(runDir, 2, [2]);
  assert.deepEqual(await snapshotsIn(runDir), ["step-000002", "step-1000000", "step-999999"]);
  assert.equal((await latestSnapshot(runDir))?.step, 1_000_000);
  await pruneSnapshots(runDir, 9);
  assert.equal((await snapshotsIn(runDir)).length, 3);
});

test("leftovers of killed writers are removed, and a replacement that was cut short is undone", async (t) => {
  const runDir = await temporaryFolder(t);
  await save(runDir, 1);
  await folderOf(join(runDir, "step-000002.tmp-1-0123abcd"), { "optimizer.safetensors": "x" });
  await folderOf(join(runDir, "step-000001.replaced"), { "state.json": "old" });
  await folderOf(join(runDir, "step-000009.replaced"), { "state.json": "old" });
  const files = [
    "report.json.tmp-4-0123abcd",
    "run.lock.0123456789abcdef",
    "run.lock.tmp-99999999-0123abcd",
  ];
  const kept = ["run.lock", "notes.tmp", `run.lock.tmp-${process.ppid}-0123abcd`];
  for (const name of [...files, ...kept]) await writeFile(join(runDir, name), "");
  await removeLeftovers(runDir);
  assert.deepEqual(await snapshotsIn(runDir), [...kept, "step-000001", "step-000009"].sort());
  assert.equal((await latestSnapshot(runDir))?.step, 1);
});

test("a disk that fills up while saving leaves the previous snapshot alone and is one clear error", async (t) => {
  const runDir = await temporaryFolder(t);
  await save(runDir, 1);
  const full = async function* () {
    yield new Uint8Array(4);
    throw Object.assign(new Error("ENOSPC: no space left on device, write"), { code: "ENOSPC" });
  };
  const tensors = {
    adapter: [scalar("a", 2)],
    trained: [],
    optimizer: [{ ...scalar("m", 2), data: full }],
  };
  await assert.rejects(
    saveSnapshot(runDir, { step: 2, tensors, state: {} }, { adapterConfig: {} }),
    (error) => {
      assert.ok(error instanceof UserError && error.exitCode === 1);
      assert.match(
        error.message,
        /^cannot write .*step-000002: the disk is full \(ENOSPC: no space left/,
      );
      assert.match(
        error.hint!,
        /free some space, then try again; what was there before is unchanged/,
      );
      return true;
    },
  );
  assert.deepEqual(await snapshotsIn(runDir), ["step-000001"]);
  assert.equal((await latestSnapshot(runDir))?.step, 1);
});

test("a torn last line of the metrics is dropped, and those after a step on resuming", async (t) => {
  const runDir = await temporaryFolder(t);
  const path = join(runDir, runFiles.metrics);
  assert.deepEqual(await readLines(path), []);
  const records = [
    { event: "start" },
    { step: 0, loss: 4.25 },
    { step: 50, loss: 0.1 },
    { step: 51, loss: 1e-7 },
  ];
  for (const record of records) await appendLine(path, record);
  await appendFile(path, '{"step":52,"lo');
  assert.deepEqual(await readLines(path), records);
  await truncateMetrics(runDir, 50);
  assert.deepEqual(await readLines(path), records.slice(0, 3));
  await appendLine(path, { step: 51, loss: 3 });
  assert.deepEqual(await readLines(path), [...records.slice(0, 3), { step: 51, loss: 3 }]);
  await writeFile(path, "{}\n{\n{}\n");
  await assert.rejects(readLines(path), /metrics\.jsonl: line 2 is not JSON/);
});

test("the newest run is the one written to last; names count on, one for each that asks", async (t) => {
  const root = await temporaryFolder(t);
  const checkpoints = join(root, "checkpoints");
  assert.equal(await newestRun(checkpoints), undefined);
  for (const [name, seconds] of [
    ["gpt2-wikitext-2", 300],
    ["gpt2-wikitext-10", 200],
  ] as const) {
    const dir = await folderOf(join(checkpoints, name), { [runFiles.recipe]: "" });
    for (const path of [join(dir, runFiles.recipe), dir]) await utimes(path, seconds, seconds);
  }
  await mkdir(join(checkpoints, "tiny-gpt2")); // a model, not a run
  assert.equal(await newestRun(checkpoints), join(checkpoints, "gpt2-wikitext-2"));
  await appendLine(join(checkpoints, "gpt2-wikitext-10", runFiles.metrics), { step: 1 });
  assert.equal(await newestRun(checkpoints), join(checkpoints, "gpt2-wikitext-10"));
  const claims = Array.from({ length: 5 }, () => claimRunFolder(checkpoints, "gpt2-wikitext"));
  const names = (await Promise.all(claims)).map((dir) => basename(dir));
  const numbers = ["11", "12", "13", "14", "15"];
  assert.deepEqual(
    names.toSorted(),
    numbers.map((number) => `gpt2-wikitext-${number}`),
  );
  assert.equal(await claimRunFolder(checkpoints, "gpt2"), join(checkpoints, "gpt2-1"));
});
