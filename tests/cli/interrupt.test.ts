// Signals and kills against the real program: whatever ends it, it continues to the result of the run that nobody ended.

import assert from "node:assert/strict";
import { existsSync } from "node:fs";
import { join } from "node:path";
import { before, test } from "node:test";
import { createRandom } from "../../src/core/random.ts";
import { fixture, outcomeOf, writeTokens } from "../run/small-run.ts";
import { jsonLines, ssa } from "./program.ts";
import { sharedFolder } from "../helpers.ts";

let folder = "";
let args: string[] = [];
const steps = 40;
before(async () => {
  folder = sharedFolder();
  const data = await writeTokens(join(folder, "data"));
  args = ["finetune", "--base", fixture(), "--data", data, "--device", "cpu", "--threads", "1"];
  args.push("--steps", String(steps), "--gradient-accumulation-steps", "60", "--save-every", "5");
  args.push(
    "--eval-every",
    "7",
    "--max-added-share",
    "0.5",
    "--tune",
    "temperatures,norms",
    "--log-format",
    "json",
  );
  const { code, stderr } = await ssa([...args, "--out", join(folder, "whole")]);
  assert.equal(code, 0, stderr);
});

/** The last step that stderr tells of. */
const stepIn = (stderr: string) =>
  Number(/.*"kind":"step","steps":\d+,"step":(\d+)/s.exec(stderr)?.[1] ?? 0);

for (const signal of ["SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1"] as const)
  test(`${signal}: the step is finished and saved, exit 130, and the run continues as it was told`, async () => {
    const out = join(folder, signal);
    let isSent = false;
    const stopped = await ssa([...args, "--out", out], {
      onStderr: (stderr, child) => {
        if (!isSent && stepIn(stderr) >= 12) isSent = child.kill(signal);
      },
    });
    assert.equal(stopped.code, 130, stopped.stderr);
    assert.equal(stopped.stdout, "");
    const last = String(jsonLines(stopped.stderr).at(-1)!["msg"]);
    const [, step, command] = /^stopped and saved after step (\d+); continue: ssa (.*)$/.exec(
      last,
    )!;
    assert.ok(Number(step) >= 12 && Number(step) < steps, last);
    assert.ok(existsSync(join(out, `step-${step!.padStart(6, "0")}`)));

    if (signal !== "SIGINT") return;
    const resumed = await ssa(command!.split(" "));
    assert.equal(resumed.code, 0, resumed.stderr);
    assert.deepEqual(await outcomeOf(out), await outcomeOf(join(folder, "whole")));
  });

test("a second Ctrl+C leaves at once and loses only what was not saved", async () => {
  const out = join(folder, "twice");
  let sent = 0;
  // Steps of many micro batches, so that the first signal finds one under way.
  const slow = [...args, "--out", out, "--gradient-accumulation-steps", "4000"];
  const { code, signal, stderr } = await ssa(slow, {
    onStderr: (text, child) => {
      if (sent === 0 && text.includes('"kind":"saved","step":0'))
        sent = Number(child.kill("SIGINT"));
      if (sent === 1 && text.includes("once more to leave at once"))
        sent += Number(child.kill("SIGINT"));
    },
  });
  // 130 to a shell.
  assert.deepEqual([code, signal, sent], [null, "SIGINT", 2], stderr);
  assert.ok(existsSync(join(out, "step-000000", "state.json")));
});

test("killed again and again at random moments, it ends with the same result", async () => {
  const out = join(folder, "killed");
  const random = createRandom(7);
  const killAfter = async (isDue: (stderr: string) => boolean, delayMs: number) => {
    let isKilled = false;
    const resume = existsSync(out) ? ["--resume"] : [];
    const ended = await ssa([...args, ...resume, "--out", out], {
      onStderr: (stderr, child) => {
        if (isKilled || !isDue(stderr)) return;
        isKilled = true;
        setTimeout(() => child.kill("SIGKILL"), delayMs);
      },
    });
    assert.ok(ended.signal === "SIGKILL" || ended.code === 0, ended.stderr);
  };
  await killAfter((stderr) => stderr.includes('"phase":"before"'), 0);
  for (let step = 6; step < steps; step += 6 + Math.floor(random.uniform() * 20))
    await killAfter((stderr) => stepIn(stderr) >= step, random.uniform() * 30);
  await killAfter((stderr) => stderr.includes('"phase":"after"'), 0);
  const last = await ssa([...args, "--resume", "--out", out]);
  assert.equal(last.code, 0, last.stderr);
  assert.deepEqual(await outcomeOf(out), await outcomeOf(join(folder, "whole")));
});
