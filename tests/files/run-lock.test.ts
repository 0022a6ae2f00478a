// The lock of a run folder: one holder, dead holders replaced by one taker, nobody else's lock removed.

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { existsSync } from "node:fs";
import { readdir, readFile, writeFile } from "node:fs/promises";
import { hostname } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { UserError } from "../../src/core/errors.ts";
import { lockRun } from "../../src/files/lock.ts";
import { temporaryFolder } from "../helpers.ts";

/** A process id of this machine that is free: that of a process which has ended. */
async function endedPid(): Promise<number> {
  const child = spawn(process.execPath, ["--version"], { stdio: "ignore" });
  await new Promise((resolve) => child.on("close", resolve));
  return child.pid!;
}

function ownerText(owner: Record<string, unknown>): string {
  return JSON.stringify({
    pid: 1,
    host: hostname(),
    started: null,
    nonce: "0123456789abcdef",
    ...owner,
  });
}

test("a second taker is refused with the holder's process id until it lets go", async (t) => {
  const runDir = await temporaryFolder(t);
  const lock = await lockRun(runDir);
  await assert.rejects(lockRun(runDir), (error) => {
    assert.ok(error instanceof UserError && error.exitCode === 2);
    assert.match(error.message, new RegExp(`is in use by process ${process.pid}$`));
    return true;
  });
  assert.deepEqual(await readdir(runDir), ["run.lock"]);
  await lock.release();
  await lock.release();
  assert.deepEqual(await readdir(runDir), []);
  await (await lockRun(runDir)).release();
});

test("the lock of a dead process is taken over, also where its id is used again or the file is torn", async (t) => {
  const stale: Record<string, string> = {
    dead: ownerText({ pid: await endedPid() }),
    torn: ownerText({}).slice(0, 20),
    empty: "",
    odd: "null",
    escaping: ownerText({ pid: await endedPid(), nonce: "/../../x" }),
  };
  // Where the system tells when a process started, its id alone does not make a holder.
  if (existsSync("/proc/self/stat"))
    stale["reused"] = ownerText({ pid: process.pid, started: "another boot 1" });
  for (const [what, text] of Object.entries(stale)) {
    const runDir = await temporaryFolder(t);
    await writeFile(join(runDir, "run.lock"), text);
    await lockRun(runDir);
    const owner = JSON.parse(await readFile(join(runDir, "run.lock"), "utf8")) as { pid: number };
    assert.equal(owner.pid, process.pid, what);
    assert.deepEqual(await readdir(runDir), ["run.lock"], what);
    await assert.rejects(lockRun(runDir), /is in use/, what);
  }
});

test("a taker that died while taking over is taken over itself", async (t) => {
  const runDir = await temporaryFolder(t);
  const pid = await endedPid();
  await writeFile(join(runDir, "run.lock"), ownerText({ pid, nonce: "aaaaaaaaaaaaaaaa" }));
  await writeFile(
    join(runDir, "run.lock.aaaaaaaaaaaaaaaa"),
    ownerText({ pid, nonce: "bbbbbbbbbbbbbbbb" }),
  );
  await lockRun(runDir);
  assert.deepEqual(await readdir(runDir), ["run.lock"]);
});

test("a holder on another machine is believed to live", async (t) => {
  const runDir = await temporaryFolder(t);
  await writeFile(join(runDir, "run.lock"), ownerText({ pid: 7, host: "elsewhere" }));
  await assert.rejects(lockRun(runDir), /is in use by process 7 on elsewhere/);
});

test("of many that find a free or a stale lock at once, exactly one gets it", async (t) => {
  const pid = await endedPid();
  for (let round = 0; round < 40; round++) {
    const runDir = await temporaryFolder(t);
    if (round % 2) await writeFile(join(runDir, "run.lock"), ownerText({ pid }));
    const outcomes = await Promise.allSettled(Array.from({ length: 12 }, () => lockRun(runDir)));
    const locks = outcomes.filter((outcome) => outcome.status === "fulfilled");
    assert.equal(locks.length, 1, `round ${round}`);
    for (const outcome of outcomes) {
      if (outcome.status === "rejected")
        assert.match(String(outcome.reason), /is in use by process/);
    }
    assert.deepEqual(await readdir(runDir), ["run.lock"]);
    await locks[0]!.value.release();
    assert.deepEqual(await readdir(runDir), []);
  }
});

test("a folder that cannot be written is a user's matter", async (t) => {
  await assert.rejects(
    lockRun(join(await temporaryFolder(t), "absent")),
    /cannot write .*run\.lock: its folder does not exist/,
  );
});
