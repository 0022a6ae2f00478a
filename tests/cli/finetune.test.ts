// `ssa finetune` as a person and a script see it: what goes to which stream, where runs are, how they are resumed.

import assert from "node:assert/strict";
import { readdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { before, test } from "node:test";
import { stripVTControlCharacters } from "node:util";
import type { RunReport } from "../../src/evaluate/results.ts";
import { fixture, readJson, writeTokens } from "../run/small-run.ts";
import { assertRefused, jsonLines, onlyJson, ssa } from "./program.ts";
import { sharedFolder } from "../helpers.ts";

type Ended = Pick<RunReport, "steps" | "before" | "after">;

let cwd = "";
const command = ["finetune", "--base", fixture(), "--data", "corpus", "--device", "cpu"];
const args = [
  ...command,
  "--max-added-share",
  "0.5",
  "--steps",
  "6",
  "--eval-every",
  "3",
  "--save-every",
  "2",
];
before(async () => {
  cwd = sharedFolder();
  await writeTokens(join(cwd, "corpus"));
});

test("--json: the report on stdout, JSON lines on stderr; --resume tells it again", async () => {
  const { code, stdout, stderr } = await ssa([...args, "--json", "--log-format", "json"], {
    cwd,
  });
  assert.equal(code, 0, stderr);
  const run = join(cwd, "checkpoints", "gpt2-corpus-1");
  const report = await readJson(join(run, "report.json"));
  assert.deepEqual(onlyJson(stdout), report);
  assert.deepEqual((await readdir(run)).sort(), [
    "after.json",
    "before.json",
    "details.json",
    "final",
    "metrics.jsonl",
    "recipe.yaml",
    "report.html",
    "report.json",
    "step-000004",
    "step-000006",
  ]);

  const records = jsonLines(stderr);
  for (const { level, time } of records)
    assert.ok(level === 30 && !Number.isNaN(Date.parse(String(time))));
  const messages = records.map(({ msg }) => String(msg)).join("\n");
  assert.match(messages, /new +90 parameters, 0\.9671 % of the base/);
  assert.match(messages, /query +token \+ position, 2 layers of 3 heads: 48/);
  assert.match(messages, /value +token, 2 layers of 3 heads: 42/);
  const done = records.filter(({ kind }) => kind === "step").map(({ step }) => step);
  assert.deepEqual(done, [1, 2, 3, 4, 5, 6]);

  const again = await ssa(["finetune", "--resume", "--json"], { cwd });
  assert.deepEqual([again.code, onlyJson(again.stdout)], [0, report]);
  const table = await ssa(["finetune", "--resume", "--log-format", "auto"], { cwd });
  assert.match(table.stdout, /^trained values +90 \(temperatures\)$/m);
  assert.match(table.stdout, /^before +[\d.]+ +[\d.]+\nafter +[\d.]+ +[\d.]+\n\nperplexity -/m);
  assert.match(table.stderr, /gpt2-corpus-1 is finished/);

  const other = await ssa(["finetune", "--resume", "--steps", "5", "--seed", "1"], { cwd });
  assertRefused(other, /has another recipe, .*: steps is 6, not 5; seed is 0, not 1/);
  assertRefused(
    await ssa([...args, "--out", "checkpoints/gpt2-corpus-1"], { cwd }),
    /is not empty/,
  );
  const more = await ssa(["finetune", "--resume", "--steps", "7", "--json"], { cwd });
  assert.equal(more.code, 0, more.stderr);
  assert.equal(onlyJson(more.stdout)["steps"], 7);
  assert.match(more.stderr, /resuming at step 6 /);
});

test("plain lines that fit 80 columns, piped", async () => {
  const { code, stdout, stderr } = await ssa([...args, "--out", "plain"], { cwd });
  assert.equal(code, 0, stderr);
  assert.match(stderr, /^step 1\/6 {2}loss \d\.\d{4} {2}lr 1\.0e-2 {2}[\d,]+ tok\/s$/m);
  assert.match(
    stderr,
    /^next {6}ssa eval --model plain\/final --data corpus\n {10}ssa convert --model plain\/final --to onnx --out plain-onnx$/m,
  );
  assert.match(stderr, /^step 3: held-out perplexity [\d.]+$/m);
  const lines = [...stdout.split("\n"), ...stderr.split("\n")].filter(
    (line) => !line.startsWith("run "),
  );
  for (const line of lines) assert.ok(line.length <= 80, line);
  assert.equal(stripVTControlCharacters(stderr), stderr);
  assert.ok(!stderr.includes("\r"));
});

test("a finished run takes more steps, as if it had been asked for them", async () => {
  const flat = ["--schedule", "constant", "--warmup-steps", "2"];
  const resume = ["finetune", "--resume", "--out", "longer", "--json"];
  await ssa([...args, "--out", "longer", ...flat], { cwd });
  const { code, stdout, stderr } = await ssa([...resume, "--steps", "8"], { cwd });
  assert.equal(code, 0, stderr);
  assert.match(stderr, /^resuming at step 6 from /m);
  const options = ["--out", "whole", ...flat, "--steps", "8", "--json"];
  const whole = await ssa([...args, ...options], { cwd });
  const [longer, expected] = [stdout, whole.stdout].map(onlyJson) as [Ended, Ended];
  assert.deepEqual(
    [longer.steps, longer.after.lossNats],
    [expected.steps, expected.after.lossNats],
  );
  const again = await ssa(resume, { cwd });
  assert.match(again.stderr, /longer is finished/);
  assert.deepEqual(onlyJson(again.stdout), longer);
});

test("a run of one step changes the model", async () => {
  const one = [...args, "--out", "one", "--steps", "1", "--json"];
  const { before, after } = onlyJson((await ssa(one, { cwd })).stdout) as unknown as Ended;
  assert.ok(after.lossNats < before.lossNats);
});

test("what comes next works as it is printed, with the words that called the program", async () => {
  const story = "The nation is at peace with every other nation. ".repeat(60);
  await writeFile(join(cwd, "it's.txt"), story);
  const names = ["finetune", "--base", "tiny-gpt2", "--data", "it's.txt", "--out", "small run"];
  const sizes = ["--steps", "1", "--context", "16", "--hold-out", "0.3", "--device", "cpu"];
  sizes.push("--report-windows", "5", "--max-tokens", "500");
  const { stderr } = await ssa([...names, ...sizes], { cwd, env: { npm_command: "exec" } });
  const lines = stderr.split("\n").filter((line) => /^(next)? +npx ssa /.test(line));
  const commands = lines.map((line) => line.slice("next      npx ssa ".length));
  assert.deepEqual(
    commands.map((command) => command.split(" ")[0]),
    ["eval", "generate", "convert"],
    stderr,
  );
  const report = join(cwd, "small run", "report.json");
  for (const command of commands) {
    const words = [...command.matchAll(/(?:'[^']*'|"[^"]*"|\\.|[^\s'"\\])+/g)].map(([text]) =>
      text.replace(/'([^']*)'|"([^"]*)"|\\(.)/g, "$1$2$3"),
    );
    const ended = await ssa([...words, "--json"], { cwd, env: { SSA_CACHE: join(cwd, "cache") } });
    assert.equal(ended.code, 0, `${command}: ${ended.stderr}`);
    const result = onlyJson(ended.stdout);
    if (words[0] === "eval") assert.deepEqual(result, (await readJson(report))["after"]);
  }
  // No legend of colours where there are none.
  const seen = await ssa(["inspect", "small run", "--text", "The nation"], { cwd });
  assert.match(seen.stdout, /^token +nats/);
});

test("the environment names a device under the command line's and over the recipe's", async () => {
  const env = { SSA_DEVICE: "abacus" };
  assertRefused(
    await ssa([...command.slice(0, -2), "--out", "device"], { cwd, env }),
    /device .*"abacus"/,
  );
  const plan = await ssa([...args, "--dry-run", "--json", "--out", "device"], { cwd, env });
  assert.equal(plan.code, 0, plan.stderr);
  onlyJson(plan.stdout);
});
