// A run folder whose process dies at any moment, or whose disk is really full: the last good snapshot is found.

import assert from "node:assert/strict";
import { execFile, spawn } from "node:child_process";
import { join } from "node:path";
import { test, type TestContext } from "node:test";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { latestSnapshot } from "../../src/files/run-folder.ts";
import { readLines } from "../../src/files/json.ts";
import { runFiles } from "../../src/files/names.ts";
import { openSafetensors, readFloats } from "../../src/files/safetensors.ts";
import { temporaryFolder } from "../helpers.ts";

const child = fileURLToPath(new URL("save-in-a-loop.ts", import.meta.url));

test("on a file system that is really full the last good snapshot is found", async (t) => {
  const mount = await privateMount();
  if (mount === undefined) return t.skip("no rights to mount a small file system");
  const runDir = await temporaryFolder(t);
  // Snapshots of 1.3 MB, two kept while the next is built: 3 MB have no room for the third.
  const script = `mount -t tmpfs -o size=3m tmpfs "$0" && "$1" --import tsx "$2" "$0" 80000; ls "$0"`;
  const args = [...mount, "sh", "-c", script, runDir, process.execPath, child];
  const { stdout, stderr } = await promisify(execFile)("unshare", args);
  assert.match(stderr, /cannot write .*step-000003: the disk is full/);
  assert.equal(
    stdout.trim(),
    ["1", "2", "metrics.jsonl", "run.lock", "step-000001", "step-000002"].join("\n"),
  );
});

/** How `unshare` gives this user a private place for mounts, if it does. */
async function privateMount(): Promise<string[] | undefined> {
  for (const options of [["-m"], ["-Urm"]]) {
    const probe = [...options, "mount", "-t", "tmpfs", "tmpfs", "/mnt"];
    const isAllowed = await promisify(execFile)("unshare", probe).then(
      () => true,
      () => false,
    );
    if (isAllowed) return options;
  }
  return undefined;
}

test("after kill -9 at any moment of saving, the last snapshot that was reported is there", async (t) => {
  const runDir = await temporaryFolder(t);
  let reached = 0;
  for (let round = 0; round < 8; round++) {
    const reported = await killWhileSaving(t, runDir, 3 + round * 7);
    assert.ok(reported > reached, `round ${round} saved nothing`);
    const found = await latestSnapshot(runDir);
    assert.ok(found && found.step >= reported, `step ${found?.step}, but ${reported} was saved`);
    assert.deepEqual(found.skipped, []);
    assert.deepEqual(found.state, { step: found.step });
    for (const file of ["ssa_adapter", "trained", "optimizer"]) {
      const { tensors } = await openSafetensors(join(found.dir, `${file}.safetensors`));
      for (const info of tensors.values()) {
        assert.ok((await readFloats(info)).every((value) => value === found.step));
      }
    }
    const steps = (await readLines(join(runDir, runFiles.metrics))).map((record) => record["step"]);
    assert.deepEqual(
      steps,
      Array.from(steps, (_, i) => i + 1),
      "metrics without gap or repetition",
    );
    assert.ok(steps.length >= found.step);
    reached = found.step;
  }
});

/** Starts the saving child, kills it `delayMs` after its second report, and returns the last step reported. */
async function killWhileSaving(t: TestContext, runDir: string, delayMs: number): Promise<number> {
  const running = spawn(process.execPath, ["--import", "tsx", child, runDir], {
    stdio: ["ignore", "pipe", "inherit"],
  });
  t.after(() => running.kill("SIGKILL"));
  let output = "";
  await new Promise<void>((resolve, reject) => {
    let timer: NodeJS.Timeout | undefined;
    running.stdout.on("data", (data: Buffer) => {
      output += data.toString();
      if (output.split("\n").length > 2)
        timer ??= setTimeout(() => running.kill("SIGKILL"), delayMs);
    });
    running.on("error", reject);
    running.on("close", () => resolve());
  });
  return Number(output.trimEnd().split("\n").at(-1));
}
