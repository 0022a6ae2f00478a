// `ssa eval --shard` and `--collect`, and tasks and comparisons on the ranks of MPI: what several jobs compute is
// what one process gives, bit for bit.

import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { before, test } from "node:test";
import { orElse } from "../../src/core/errors.ts";
import { fixture, readJson, writeTokens } from "../run/small-run.ts";
import { assertRefused, onlyJson, ssa } from "./program.ts";
import { sharedFolder } from "../helpers.ts";

let cwd = "";
before(async () => {
  cwd = sharedFolder();
  await writeTokens(cwd);
});

const how = ["--device", "cpu", "--threads", "1"];
const perplexity = ["eval", "--model", fixture(), "--data", "val.bin", ...how];
const run = (...args: string[]) => ssa(args, { cwd });
async function printed(...args: string[]): Promise<string> {
  const { code, stdout, stderr } = await run(...args);
  assert.equal(code, 0, stderr);
  return stdout;
}

test("shards, collected, print what one process prints, but for the time; the gate is of all", async () => {
  const whole = await printed(...perplexity, "--save-baseline", "saved.json");
  const share = (i: number, ...more: string[]) =>
    printed(...perplexity, "--shard", `${i}/2`, "--out", "shards", ...more);
  assert.equal(await share(1), "scored in shards; next: --collect\n");
  const left = { out: "shards", shard: { index: 2, count: 2 } };
  assert.deepEqual(onlyJson(await share(2, "--json")), left);
  const collect = [...perplexity, "--collect", "--out", "shards"];
  assert.equal(await printed(...collect), whole.replace(/^time .*\n/m, ""));
  const gated = onlyJson(await printed(...collect, "--json", "--baseline", "saved.json"));
  const { comparison, ...result } = gated;
  assert.deepEqual(result, await readJson(join(cwd, "saved.json")));
  assert.equal((comparison as { percent: number }).percent, 0);
});

test("shards need a folder, and one shard is not all of them", async () => {
  for (const [words, message] of [
    ["--shard 1/2", /--shard and --collect need --out, a folder; nothing else takes it/],
    ["--shard 1/2 --collect --out x", /--collect is of all shards, --shard does one/],
  ] as const)
    assertRefused(await run(...perplexity, ...words.split(" ")), message);
});

const mpirun = "mpirun.openmpi --allow-run-as-root --oversubscribe";
const isHere = orElse(() => Boolean(import.meta.resolve("koffi")), false);
const hasRanks = isHere && spawnSync("mpirun.openmpi", ["--version"]).status === 0;
const skip = hasRanks ? false : "koffi or mpirun.openmpi is not here";
const onRanks = (args: string[]) => ssa(args, { cwd, script: `exec ${mpirun} -np 2 "$@"` });

test("a task on two ranks is that of one process", { skip }, async () => {
  const task = ["eval", "--model", "tiny-gpt2", ...how, "--json", "--task", "passkey"];
  task.push("--passkey-lengths", "96", "--passkey-trials", "1");
  const { code, stdout, stderr } = await onRanks(task);
  assert.equal(code, 0, stderr);
  assert.equal(stdout, await printed(...task));
});

test("a comparison on two ranks is that of one process", { skip }, async () => {
  const recipe = [`base: ${fixture()}`, "data: .", "device: cpu", "threads: 1", "steps: 2"];
  recipe.push("maxAddedShare: 0.5", "gradientAccumulationSteps: 2");
  recipe.push("arms: { plain: {}, norms: { tune: [norms] } }");
  await writeFile(join(cwd, "arms.yaml"), recipe.join("\n"));
  const arms = (out: string) => ["compare", "--recipe", "arms.yaml", "--out", out, "--json"];
  const whole = await printed(...arms("one"));
  const { code, stdout, stderr } = await onRanks(arms("two"));
  assert.equal(code, 0, stderr);
  // What it took, and where, are others.
  const figures = (text: string) =>
    JSON.parse(text, (key, value: unknown) =>
      /seconds|peakRssBytes|folder|device|cost/i.test(key) ? undefined : value,
    ) as unknown;
  assert.deepEqual(figures(stdout), figures(whole));
});
