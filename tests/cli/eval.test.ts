// `ssa eval` and `ssa inspect`: results, and the gate of a CI job with its exit codes.

import assert from "node:assert/strict";
import { readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { before, test } from "node:test";
import { UserError } from "../../src/core/errors.ts";
import { evaluate } from "../../src/run/evaluate.ts";
import { fineTune } from "../../src/run/fine-tune.ts";
import { fixture, readJson, smallRecipe, writeTokens } from "../run/small-run.ts";
import { allClose, sharedCase, sharedData, sharedFolder, skipWithout } from "../helpers.ts";
import { assertRefused, onlyJson, ssa } from "./program.ts";

let cwd = "";
const args = ["eval", "--model", fixture(), "--data", ".", "--device", "cpu"];
before(async () => {
  cwd = sharedFolder();
  await writeTokens(cwd);
});

test("--json prints one document; a table otherwise; both the same whatever the batch size", async () => {
  const { code, stdout, stderr } = await ssa([...args, "--json", "--save-baseline", "base.json"], {
    cwd,
  });
  assert.equal(code, 0, stderr);
  const result = onlyJson(stdout);
  assert.deepEqual(await readJson(join(cwd, "base.json")), result);
  assert.deepEqual(
    [result["convention"], result["context"], result["stride"], result["numTokens"]],
    ["disjoint", 16, 16, 190],
  );
  assert.match(String(result["dataSha256"]), /^[0-9a-f]{64}$/);
  assert.match(String(result["modelSha256"]), /^[0-9a-f]{64}$/);

  const table = await ssa([...args, "--batch-size", "8", "--windows", "5"], { cwd });
  assert.match(table.stdout, /^data +\., validation\nperplexity +[\d.]+$/m);
  assert.match(table.stdout, /^windows +5 of 16 tokens, an even subset of 13$/m);
  const wide = onlyJson((await ssa([...args, "--batch-size", "8", "--json"], { cwd })).stdout);
  allClose([Number(wide["lossNats"])], [Number(result["lossNats"])], { rtol: 1e-6 });
});

test("the gate: 0 within the allowed rise, 1 over it, 2 for what cannot be compared", async () => {
  const path = join(cwd, "baseline.json");
  await ssa([...args, "--save-baseline", path], { cwd });
  const same = await ssa([...args, "--baseline", path], { cwd });
  assert.equal(same.code, 0);
  assert.match(
    same.stdout.trimEnd().split("\n").at(-1)!,
    /^OK: perplexity ([\d.]+), baseline \1 \(\+0\.000%, allowed \+0%\)$/,
  );

  // A report.json's `after` counts: here one that is 1 % better.
  const saved = JSON.parse(await readFile(path, "utf8")) as {
    lossNats: number;
    perplexity: number;
  };
  const better = {
    ...saved,
    lossNats: saved.lossNats - Math.log(1.01),
    perplexity: saved.perplexity / 1.01,
  };
  await writeFile(path, JSON.stringify({ before: saved, after: better }));
  const gate = [...args, "--baseline", path, "--max-increase"];
  const worse = await ssa([...gate, "0.5%"], { cwd });
  assert.equal(worse.code, 1);
  assert.match(
    worse.stdout,
    /^REGRESSION: perplexity [\d.]+, baseline [\d.]+ \(\+1\.000%, allowed \+0\.5%\)$/m,
  );
  const allowed = await ssa([...gate, "1.5", "--json"], { cwd });
  assert.equal(allowed.code, 0);
  const comparison = onlyJson(allowed.stdout)["comparison"] as Record<string, unknown>;
  assert.equal(comparison["hasRegressed"], false);
  assert.match(allowed.stderr, /^OK: /m);

  const other = await ssa([...gate, "1%", "--context", "8"], { cwd });
  assertRefused(
    other,
    /not comparable .*: context is 8, was 16; stride is 8, was 16; numTokens is 177, was 190\s+hint: .*: --context 16, on the same data/,
  );
  const train = args.map((arg) => (arg === "." ? "train.bin" : arg));
  assertRefused(
    await ssa([...train, "--baseline", path], { cwd }),
    /dataSha256 is [0-9a-f]{12}, was/,
  );
});

test("a program's options are checked as flags are: all mistakes at once, before anything is opened", async () => {
  const asked = { model: "none", data: "none", windowz: 2, windows: "x", device: "gpu0" };
  const given = asked as unknown as Parameters<typeof evaluate>[0];
  await assert.rejects(evaluate(given), (error) => {
    assert.ok(error instanceof UserError && error.exitCode === 2);
    const [first, ...lines] = error.message.split("\n").toSorted();
    assert.match(first!, /^  device \(options\): expected .*found "gpu0"/);
    assert.match(lines[0]!, /windows \(options\): expected all or a whole number.*found "x"$/);
    assert.match(lines[1]!, /windowz \(options\): unknown key; did you mean windows\?$/);
    return true;
  });
  const task = "perplexty" as "perplexity";
  await assert.rejects(evaluate({ model: "none", data: "none", task }), /perplexty.*not supported/);
});

test("a model as the baseline: the paired interval of a run's report, or a refusal", async () => {
  const out = join(cwd, "run");
  const recipe = { base: fixture(), data: cwd, ...smallRecipe, steps: 2, threads: 1, out };
  const { delta, before } = await fineTune(recipe);
  const compare = (...more: string[]) => ssa([...args, "--model", out, ...more], { cwd });
  const { stdout, stderr } = await compare("--baseline", fixture(), "--json", "--threads", "1");
  const comparison = onlyJson(stdout || stderr)["comparison"] as Record<string, unknown>;
  const { lossNats, standardError, percent, interval95, baselinePerplexity } = comparison;
  allClose(
    [lossNats, standardError, percent, ...(interval95 as number[])].map(Number),
    [delta.lossNats, delta.standardError!, delta.percent, ...delta.interval95!],
    { rtol: 1e-6 },
  );
  assert.equal(baselinePerplexity, (comparison["baseline"] as typeof before).perplexity);
  allClose([baselinePerplexity], [before.perplexity], { rtol: 1e-9 });
  assert.match(
    (await compare("--baseline", fixture())).stdout,
    /^OK: perplexity [\d.]+, baseline [\d.]+ \(-[\d.]+%, 95 % interval -[\d.]+% to [-+][\d.]+%, allowed \+0%\)$/m,
  );
  // The other way round it has risen.
  const risen = await ssa([...args, "--baseline", out], { cwd });
  assert.equal(risen.code, 1, risen.stderr);
  const refused = [
    [[...args, "--baseline", "nowhere.json"], /nowhere.json/],
    [
      [
        "eval",
        "--model",
        "tiny-gpt2",
        "--data",
        "moby-dick",
        "--baseline",
        sharedData("stories260k"),
        "--windows",
        "2",
      ],
      /stories260k does not compare with tiny-gpt2: their tokenizers give other tokens\s+hint/,
    ],
  ] as const;
  for (const [given, message] of skipWithout(stories) ? refused.slice(0, 1) : refused)
    assertRefused(await ssa([...given], { cwd }), message);
});

test("--task measures something else; an unknown one is refused before anything is opened", async () => {
  const documents = ["the people of the United States", "I am the man", "he was not a child"];
  const rows = documents.map((text) => JSON.stringify({ text })).join("\n");
  await writeFile(join(cwd, "documents.jsonl"), rows);
  const task = ["eval", "--model", "tiny-gpt2", "--data", "documents.jsonl", "--device", "cpu"];
  const { stdout, stderr } = await ssa([...task, "--task", "lambada", "--json"], { cwd });
  const result = onlyJson(stdout || stderr);
  assert.deepEqual([result["task"], result["numDocuments"]], ["lambada", 3]);
  const share = 3 * Number(result["accuracy"]);
  assert.ok(Math.abs(share - Math.round(share)) < 1e-9);
  const table = await ssa([...task, "--task", "lambada"], { cwd });
  assert.match(table.stdout, /^accuracy +[01]\.\d+ ± [\d.]+$/m);
  assert.match(table.stdout, /^documents +3$/m);
  const nowhere = ["eval", "--model", "no/such", "--data", "nowhere.txt", "--task", "lambda"];
  assertRefused(await ssa(nowhere, { cwd }), /--task.*lambda.*lambada/s);
});

const bosCase = sharedCase("bos-differs-from-eos");
test("lm-eval puts BOS in front, not EOS", { skip: skipWithout(bosCase) }, async () => {
  const page = sharedCase("data/page.txt");
  const lmEval = ["eval", "--model", bosCase, "--data", page, "--convention", "lm-eval", "--json"];
  const { stdout, stderr } = await ssa([...lmEval, "--device", "cpu"], { cwd });
  allClose([Number(onlyJson(stdout || stderr)["lossNats"])], [7.478553], { atol: 1e-6 });
});

test("inspect tells what a folder holds", async () => {
  const { code, stdout } = await ssa(["inspect", fixture("llama"), "--json"], { cwd });
  assert.equal(code, 0);
  const { modelType, isAugmented, tokenizer } = onlyJson(stdout);
  assert.deepEqual([modelType, isAugmented, tokenizer], ["llama", false, null]);
  const text = await ssa(["inspect", fixture("llama"), "--tensors"], { cwd });
  assert.match(text.stdout, /^architecture +llama$/m);
  assert.match(text.stdout, /^layers +\d+, hidden size \d+\nheads +\d+ of size \d+$/m);
  assert.match(text.stdout, /^model\.embed_tokens\.weight +F32 +43 × \d+$/m);
});

const stories = sharedData("stories260k");
test("a real model on real text", { skip: skipWithout(stories) }, async () => {
  const data = sharedData("tinystories", "five-stories.txt");
  const all = [
    "eval",
    "--model",
    stories,
    "--data",
    data,
    "--context",
    "512",
    "--device",
    "cpu",
    "--json",
  ];
  const { stdout, stderr } = await ssa(all, { cwd, env: { SSA_CACHE: join(cwd, "cache") } });
  const { lossNats, numTokens, bitsPerByte } = onlyJson(stdout || stderr);
  assert.equal(numTokens, 1879);
  allClose([Number(lossNats)], [1.82328], { atol: 5e-6 });
  assert.ok(Number(bitsPerByte) > 0);
});
