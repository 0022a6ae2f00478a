// An evaluation in shares: put together they are the whole, bit for bit, with a baseline, in batches, of every kind of
// task; and nothing else is put together.

import assert from "node:assert/strict";
import { readdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { before, test } from "node:test";
import { DEFAULT_TEMPERATURES } from "../../src/insertions/parts.ts";
import { evaluateTasks } from "../../src/run/evaluate.ts";
import { fixture, readJson, writeTokens } from "./small-run.ts";
import { sharedFolder } from "../helpers.ts";

type Options = Parameters<typeof evaluateTasks>[0];

let root = "";
let options: Options;
before(async () => {
  root = sharedFolder();
  const data = join(await writeTokens(root), "val.bin");
  const tasks = [{ name: "perplexity", data }] as const;
  options = { model: fixture(), tasks, device: "cpu", threads: 1, cacheDir: join(root, "cache") };
});

const share = (of: Options, out: string, index: number, count: number) =>
  evaluateTasks({ ...of, dealt: { folder: join(root, out), shard: { index, count } } });
const collect = (of: Options, out: string) =>
  evaluateTasks({ ...of, dealt: { folder: join(root, out) } });

test("a model and its baseline in batches: what is collected is the whole; a damaged shard is run again alone", async () => {
  const notes: string[] = [];
  const baseline = fixture("gpt2-tanh");
  const of = {
    ...options,
    batchSize: 2,
    baseline,
    onNote: (note: string) => void notes.push(note),
  };
  const whole = await evaluateTasks(of);
  assert.equal(typeof whole[0]!.comparison!.hasRegressed, "boolean");
  const hint = "run them, each by the same command with --shard i/n in the place of --collect";
  const message = `${join(root, "out")}: shards of perplexity are missing or damaged`;
  await assert.rejects(collect(of, "out"), { message, hint, exitCode: 1 });
  for (const index of [3, 1, 2]) assert.deepEqual(await share(of, "out", index, 3), []);
  assert.deepEqual(await collect(of, "out"), whole);

  // Of 13 windows in seven runs of two, the second shard has the second and the fifth run: of two models, two files.
  const files = (await readdir(join(root, "out"))).filter((name) => name.includes("-2-of-3"));
  assert.equal(files.length, 2);
  const path = join(root, "out", files[0]!);
  const { nats } = await readJson(path);
  const scored = (nats as unknown[]).flatMap((loss, i) => (loss === null ? [] : [i]));
  assert.deepEqual(scored, [2, 3, 8, 9]);

  await writeFile(path, '{"nats": [');
  await assert.rejects(collect(of, "out"), { message: `${message}: 2/3` });
  await share(of, "out", 2, 3);
  assert.equal(notes.filter((note) => /^shard 2\/3 of .* is there already$/.test(note)).length, 1);
  assert.deepEqual(await collect(of, "out"), whole);
});

test("what was not measured alike is not put together: all that differs is named", async () => {
  await share(options, "other", 1, 1);
  const data = join(root, "train.bin");
  for (const [more, message] of [
    [{ context: 8 }, /: context is 8, was 16; stride is 8, .*; windows is 26, was 13; rows is 8/],
    [{ batchSize: 4 }, /other.perplexity-\w{16}-1-of-1.json is not .*: batchSize is 4, was 1$/],
    [{ temperatures: DEFAULT_TEMPERATURES }, /: adapter is \w{12}, was \w{12}$/],
    [{ tasks: [{ name: "perplexity", data }] }, /: dataSha256 is \w{12}, was \w{12}; numTokens is/],
    [{ model: fixture("gpt2-tanh") }, /modelSha256 is/],
  ] as const)
    await assert.rejects(collect({ ...options, ...more }, "other"), { message, exitCode: 2 });
});

test("tasks: argmaxes, packed rows and groups of several lengths come together again", async () => {
  const data = join(import.meta.dirname, "../fixtures/tasks/piqa.jsonl");
  const all: Options = { ...options, model: "tiny-gpt2", batchSize: 2 };
  const passkey = { lengths: [96, 120], trials: 1, depths: [0, 50] };
  for (const of of [
    { ...all, tasks: [{ name: "piqa", data }], windows: 4, mayPack: true },
    { ...all, tasks: [{ name: "passkey" }], passkey, mayPack: false },
  ] as const) {
    const whole = await evaluateTasks(of);
    for (const index of [1, 2]) await share(of, "tasks", index, 2);
    assert.deepEqual(await collect(of, "tasks"), whole);
  }
});
