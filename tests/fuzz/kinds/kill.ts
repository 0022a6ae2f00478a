// A run that is killed with SIGKILL at any moment, perhaps twice, and then continued: its result is the undisturbed one.

import { execFile, spawn } from "node:child_process";
import { existsSync } from "node:fs";
import { rm, symlink, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { isDeepStrictEqual, promisify } from "node:util";
import { packageRoot } from "../../../src/files/package-root.ts";
import { fixture, outcomeOf, writeTokens } from "../../run/small-run.ts";
import { expect, Fault } from "../contract.ts";
import { below, happens } from "../mutate.ts";
import { type Prepare, subject } from "../subject.ts";

/** Lines of the log after which it is killed, and how long after, in milliseconds. */
interface Moment {
  readonly lines: number;
  readonly delayMs: number;
}

interface Case {
  readonly moments: readonly Moment[];
}

export const kill: Prepare = async ({ folder }) => {
  const program = await build(join(folder, "program"));
  const data = await writeTokens(join(folder, "data"));
  const recipe = {
    steps: 6,
    saveEvery: 1,
    evalEvery: 3,
    evalWindows: 3,
    reportWindows: 3,
    keepLast: 2,
  };
  const args = [
    "finetune",
    "--base",
    fixture("gpt2"),
    "--data",
    data,
    "--device",
    "cpu",
    "--threads",
    "1",
  ];
  args.push(
    "--max-added-share",
    "0.5",
    "--tune",
    "temperatures,norms",
    "--gradient-accumulation-steps",
    "2",
  );
  for (const [key, value] of Object.entries(recipe)) args.push("--set", `${key}=${value}`);
  const start = (runDir: string, moment?: Moment) =>
    run([program, ...args, "--out", runDir], moment);
  const resume = (runDir: string, moment?: Moment) =>
    run([program, "finetune", "--resume", "--out", runDir], moment);

  const whole = join(folder, "whole");
  const undisturbed = await start(whole);
  expect(undisturbed.code === 0, () => undisturbed.stderr);
  const expected = withoutTimes(await outcomeOf(whole));
  const numLines = undisturbed.stderr.split("\n").length - 1;
  const runDir = join(folder, "run");
  return subject<Case>({
    mutate: (random) => {
      const moment = () => ({ lines: below(random, numLines + 1), delayMs: random.uniform() * 25 });
      return { moments: happens(random, 0.2) ? [moment(), moment()] : [moment()] };
    },
    check: async ({ moments }) => {
      await rm(runDir, { recursive: true, force: true });
      let wasKilled = false;
      // Before the recipe is there, nothing has begun that could go on.
      const goOn = (moment?: Moment) =>
        (existsSync(join(runDir, "recipe.yaml")) ? resume : start)(runDir, moment);
      for (const moment of moments)
        wasKilled = (await goOn(moment)).signal === "SIGKILL" || wasKilled;
      const { code, stderr } = await goOn();
      if (code !== 0) throw new Fault("stack", `exit ${code}: ${stderr.slice(-2000)}`);
      const found = withoutTimes(await outcomeOf(runDir));
      expect(
        isDeepStrictEqual(found, expected),
        () => `after ${JSON.stringify(moments)}: ${difference(found, expected)}`,
      );
      return wasKilled ? "other" : "same";
    },
  });
};

type Outcome = Awaited<ReturnType<typeof outcomeOf>>;

/** Plain data, so that what was read and what was made are compared as JSON is. */
const withoutTimes = (outcome: Outcome): unknown => JSON.parse(JSON.stringify(outcome));

function difference(found: unknown, expected: unknown): string {
  const keys = Object.keys(expected as object) as (keyof Outcome)[];
  const [is, was] = [found as Outcome, expected as Outcome];
  const differing = keys.filter((key) => !isDeepStrictEqual(is[key], was[key]));
  return differing.map((key) => `${key} ${JSON.stringify(is[key]).slice(0, 500)}`).join("; ");
}

/** The program as it is installed, which starts in a fraction of the time that its source takes; gives its entry. */
async function build(folder: string): Promise<string> {
  const root = packageRoot();
  const build = ["--import", "tsx", join(root, "scripts/build.ts"), join(folder, "dist")];
  await promisify(execFile)(process.execPath, build, { cwd: root });
  for (const name of ["package.json", "node_modules", "checkpoints", "recipes"])
    await symlink(join(root, name), join(folder, name));
  await writeFile(join(folder, ".keep"), "");
  return join(folder, "dist/cli/main.js");
}

function run(args: readonly string[], moment?: Moment) {
  const { HOME, PATH } = process.env;
  const child = spawn(process.execPath, [...args, "--log-format", "json"], {
    env: { HOME, PATH, HF_HUB_OFFLINE: "1" },
    stdio: ["ignore", "ignore", "pipe"],
  });
  let stderr = "";
  let timer: NodeJS.Timeout | undefined;
  const look = () => {
    if (moment && stderr.split("\n").length > moment.lines)
      timer ??= setTimeout(() => child.kill("SIGKILL"), moment.delayMs);
  };
  look();
  child.stderr.on("data", (chunk) => {
    stderr += String(chunk);
    look();
  });
  return new Promise<{ code: number | null; signal: string | null; stderr: string }>(
    (resolve, reject) => {
      child.on("error", reject);
      child.on("close", (code, signal) => {
        clearTimeout(timer);
        resolve({ code, signal, stderr });
      });
    },
  );
}
