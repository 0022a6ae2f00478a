// A comparison of arms and seeds: its runs are ordinary runs, it goes on after anything, and refuses what does not compare.

import assert from "node:assert/strict";
import { readdir, readFile, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { test } from "node:test";
import { loadComparison } from "../../src/options/comparison.ts";
import { findRecipe } from "../../src/options/load.ts";
import { readLines } from "../../src/files/json.ts";
import { compare, type CompareOptions, compareRuns } from "../../src/run/compare.ts";
import { fineTune } from "../../src/run/fine-tune.ts";
import type { ArmsCompared } from "../../src/evaluate/comparison.ts";
import { allClose, temporaryFolder } from "../helpers.ts";
import { fixture, outcomeOf, smallRecipe, writeTokens } from "./small-run.ts";

const common = { ...smallRecipe, steps: 4, threads: 1 };
const two = "arms: {temperatures: {}, norms: {tune: norms}}\nseeds: [0, 1]\n";

/** The recipe of a comparison on small tokens, with these arms. */
const load = (data: string, text: string, values = {}) =>
  loadComparison({
    file: { path: "arms.yaml", text },
    values: { base: fixture(), data, ...common, ...values },
  });

/** But for times, memory and places. */
const figures = ({ arms, pairs }: ArmsCompared) =>
  JSON.parse(
    JSON.stringify({ arms, pairs }, (key, value: unknown) =>
      /seconds|peakRss|folder|cost/i.test(key) ? undefined : value,
    ),
  ) as unknown;

test("runs of a comparison are ordinary runs; stopped again and again it gives the same, bit for bit", async (t) => {
  const folder = await temporaryFolder(t);
  const data = await writeTokens(join(folder, "data"));
  const comparison = load(data, two);
  const whole = (await compare(comparison, join(folder, "whole"))).result!;
  assert.deepEqual(
    whole.arms.map(({ name, seeds }) => [name, seeds]),
    [
      ["temperatures", [0, 1]],
      ["norms", [0, 1]],
    ],
  );
  const out = join(folder, "alone");
  const alone = await fineTune({ base: fixture(), data, ...common, tune: ["norms"], seed: 1, out });
  const norms = join(folder, "whole", "norms-seed1");
  assert.deepEqual(await outcomeOf(norms), await outcomeOf(out));
  const [, arm] = whole.arms;
  assert.equal(arm!.trained, alone.parameters.trained);
  assert.equal(arm!.runs[1]!.perplexity, alone.after.perplexity);
  const mean = (arm!.runs[0]!.perplexity * alone.after.perplexity) ** 0.5;
  allClose([arm!.after.perplexity], [mean], { rtol: 1e-12 });
  // Both began at the base, so that their difference is that of their changes.
  const [first, second] = whole.arms.map(({ change }) => change.lossNats);
  allClose([whole.pairs[0]!.lossNats], [second! - first!], { atol: 1e-12 });
  assert.equal(whole.pairs[0]!.numSeeds, 2);

  const parts = join(folder, "parts");
  let numStops = 0;
  for (;;) {
    const stop = new AbortController();
    const onEvent: CompareOptions["onEvent"] = (event) => {
      if (event.kind === "step" && event.step % 3 === 2) stop.abort();
      if (event.kind === "scored" && event.phase === "after" && numStops % 3 === 1) stop.abort();
    };
    try {
      const { result } = await compare(comparison, parts, { signal: stop.signal, onEvent });
      assert.deepEqual(figures(result!), figures(whole));
      break;
    } catch (error) {
      assert.equal(error, stop.signal.reason);
      numStops++;
    }
  }
  assert.ok(numStops >= 4, `${numStops} stops`);
  assert.deepEqual(await outcomeOf(join(parts, "norms-seed1")), await outcomeOf(norms));

  // Of the folders alone, by the recipes in them; one ran where less memory was allowed.
  const path = join(parts, "norms-seed1", "report.json");
  const report = await readFile(path, "utf8");
  await writeFile(path, report.replace('"maxMemory": "auto"', '"maxMemory": 64'));
  assert.notEqual(await readFile(path, "utf8"), report);
  const folders = (await readdir(parts)).filter((name) => name.includes("-seed"));
  const again = await compareRuns(folders.sort().map((name) => join(parts, name)));
  assert.deepEqual(
    again.arms.map(({ name, after }) => [name, after]),
    [whole.arms[1]!, whole.arms[0]!].map(({ name, after }) => [name, after]),
  );
  allClose([again.pairs[0]!.lossNats], [-whole.pairs[0]!.lossNats], { rtol: 1e-12 });
  assert.equal(again.pairs[0]!.pValue, whole.pairs[0]!.pValue);

  // Another recipe is another comparison; more steps go on.
  const other = load(data, two, { learningRate: 0.5 });
  await assert.rejects(compare(other, parts), /has another recipe, .*: learningRate is 0.02/);
  await rm(join(parts, "norms-seed1", "after.json"));
  await assert.rejects(compareRuns([norms, join(parts, "norms-seed1")]), /lacks its losses/);
});

test("an arm that fails is told, and the others are compared", async (t) => {
  const folder = await temporaryFolder(t);
  const data = await writeTokens(join(folder, "data"));
  const text = two.replace("}}", "}, wild: {tune: norms, learningRate: 1e30}}");
  const { failed, result } = await compare(load(data, text), join(folder, "out"));
  assert.deepEqual(
    failed.map(({ arm, seed }) => [arm, seed]),
    [
      ["wild", 0],
      ["wild", 1],
    ],
  );
  assert.match(failed[0]!.reason, /loss|gradient/);
  assert.deepEqual(
    result!.arms.map(({ name, seeds }) => [name, seeds.length]),
    [
      ["temperatures", 2],
      ["norms", 2],
    ],
  );
  assert.deepEqual(result!.failed, failed);
});

test("shards train each run once; collecting wants all, and gives what one process gives", async (t) => {
  const folder = await temporaryFolder(t);
  const data = await writeTokens(join(folder, "data"));
  const comparison = load(data, two, { steps: 2 });
  const [out, whole] = [join(folder, "shards"), join(folder, "whole")];
  const trained: string[] = [];
  const onRun: CompareOptions["onRun"] = ({ arm, seed }) => void trained.push(`${arm} ${seed}`);
  for (const index of [1, 2, 3]) {
    if (index === 3)
      await assert.rejects(
        compare(comparison, out, { collect: true }),
        /1 of 4 runs are missing: temperatures-seed1$/,
      );
    const { result } = await compare(comparison, out, { shard: { index, count: 3 }, onRun });
    assert.equal(result, undefined);
  }
  assert.deepEqual(trained.sort(), ["norms 0", "norms 1", "temperatures 0", "temperatures 1"]);
  // What collects may have other devices.
  const elsewhere = load(data, two, { steps: 2, device: "auto", threads: 2 });
  const { result } = await compare(elsewhere, out, { collect: true });
  assert.deepEqual(figures(result!), figures((await compare(comparison, whole)).result!));
});

test("a searched rate is the best of a sweep that sees neither the held-out text nor the compared seeds", async (t) => {
  const folder = await temporaryFolder(t);
  const data = await writeTokens(join(folder, "data"));
  const text = "lr: search\narms: {a: {tune: norms}, b: {lr: given}}\nseeds: [0]";
  const comparison = load(data, text, { steps: 2, saveEvery: 1 });
  assert.deepEqual(
    comparison.arms.map(({ isSearched }) => isSearched),
    [true, false],
  );
  const out = join(folder, "out");
  const scored: number[] = [];
  const { result } = await compare(comparison, out, {
    onEvent: (event) => {
      if (event.kind === "scored" && event.phase === "before") scored.push(event.windows);
    },
  });
  // The base is scored once on each text, whatever trains: 13 windows of 16 of the held-out one, and of a twentieth of
  // the training text's 1,201 tokens 4.
  assert.deepEqual(scored, [1, 2, 3, 4, ...Array.from({ length: 13 }, (_, i) => i + 1)]);
  const [a, b] = result!.arms;
  assert.equal(b!.search, null);
  const { points, chosen, seed, steps } = a!.search!;
  assert.deepEqual([seed, steps], [20_000, 2]);
  assert.deepEqual(
    points.slice(0, 5).map(({ halfDecades, rate }) => [halfDecades, rate]),
    [
      [0, 0.02],
      [-1, 0.00632],
      [1, 0.0632],
      [-2, 0.002],
      [2, 0.2],
    ],
  );
  assert.equal(chosen.lossNats, Math.min(...points.map(({ lossNats }) => lossNats ?? Infinity)));
  // No best one lies at an end, but where the search ends.
  const tried = points.map(({ halfDecades }) => halfDecades);
  const isInside =
    Math.min(...tried) < chosen.halfDecades && chosen.halfDecades < Math.max(...tried);
  assert.ok(isInside || Math.abs(chosen.halfDecades) === 4);
  // The point, and the run, by hand: other files hold what each saw.
  const bytes = await readFile(join(data, "train.bin"));
  const cut = 2 * Math.floor(0.95 * 1201);
  const parts = { kept: bytes.subarray(0, cut), end: bytes.subarray(cut) };
  for (const [name, part] of Object.entries(parts))
    await writeFile(join(folder, `${name}.bin`), part);
  const rates = { learningRate: chosen.rate, tune: ["norms"] } as const;
  const how = { base: fixture(), ...common, ...rates, steps: 2 };
  const point = await fineTune({
    ...how,
    data: join(folder, "kept.bin"),
    evalData: join(folder, "end.bin"),
    seed: 20_000,
    out: join(folder, "point"),
  });
  assert.equal(point.after.lossNats, chosen.lossNats);
  const run = await fineTune({ ...how, data, seed: 0, out: join(folder, "run") });
  assert.equal(a!.after.lossNats, run.after.lossNats);
  const wild = load(data, "arms: {a: {tune: norms, learningRate: 1e30, lr: search}, b: {}}", {
    steps: 2,
  });
  const { failed, result: rest } = await compare(wild, join(folder, "wild"));
  assert.deepEqual([failed.length, rest!.arms.length], [1, 1]);
  assert.match(failed[0]!.reason, /no learning rate of the search gave a finite loss/);

  // Stopped again and again, and in shards, it finds the same; what was found is not sought again.
  const parted = join(folder, "parts");
  let numStops = 0;
  for (let isDone = false; !isDone;) {
    const stop = new AbortController();
    const onEvent: CompareOptions["onEvent"] = (event) => {
      if (event.kind === "step" && ++numStops % 3 === 0) stop.abort();
    };
    isDone = await compare(comparison, parted, { signal: stop.signal, onEvent }).then(
      () => true,
      () => false,
    );
  }
  assert.ok(numStops >= 9);
  const collected = await compare(comparison, parted, { collect: true });
  assert.deepEqual(figures(collected.result!), figures(result!));
  // What was found is so on less memory too.
  const small = load(data, text, { steps: 2, saveEvery: 1, maxMemory: 64 });
  assert.deepEqual(figures((await compare(small, parted)).result!), figures(result!));
  await assert.rejects(
    compare(comparison, join(folder, "none"), { collect: true }),
    /search.a.json: the search of a learning rate is missing/,
  );
  const shards = join(folder, "shards");
  for (const index of [1, 2]) await compare(comparison, shards, { shard: { index, count: 2 } });
  assert.deepEqual(
    figures((await compare(comparison, shards, { collect: true })).result!),
    figures(result!),
  );
  const other = load(data, text, { steps: 2, saveEvery: 1, weightDecay: 0.5 });
  await assert.rejects(
    compare(other, shards, { collect: true }),
    /a.json is of a search with another recipe/,
  );
  assert.throws(
    () => load(data, "arms: {a: {lr: find}}"),
    /lr \(arm a, arms.yaml:1\): expected search or given, found "find"/,
  );
});

test("arms that do not compare are refused by name before anything trains", async (t) => {
  const folder = await temporaryFolder(t);
  const data = await writeTokens(join(folder, "data"));
  const refused = (arms: string, message: RegExp, rest = "") =>
    assert.throws(() => load(data, `arms: {a: {}, b: ${arms}}\n${rest}`), message);
  refused("{context: 8}", /arm b \(arms.yaml:1\): context is 8, but "auto" in the recipe/);
  refused("{data: other}", /arm b .*: data is "other"/);
  refused("{evalData: other}", /arm b .*: evalData is "other", but null/);
  refused("{base: other}", /arm b .*: base is "other"/);
  refused("{holdOut: 0.5}", /arm b .*: holdOut is 0.5/);
  refused(
    "{reportWindows: 3, seed: 1}",
    /2 mistakes:\s+arm b .*: reportWindows is 3.*\s+arm b .*: seed is 1/,
  );
  refused("{tune: norm}", /tune \(arm b, arms.yaml:1\): .*did you mean norms\?/);
  refused("{tun: norms}", /tun \(arm b, arms.yaml:1\): unknown key; did you mean tune\?/);
  refused("3", /arms.* expected names .*/);
  refused("{}", /seeds .*: expected different whole numbers/, "seeds: [1, 1]");
  refused("{}", /seed \(arms.yaml:2\): a comparison's seeds are in seeds/, "seed: 3\nseeds: [1]");
  assert.throws(() => load(data, "steps: 3"), /arms: missing; expected names/);
  assert.throws(() => load(data, "arms: {a/b: {}}"), /arms.* expected names/);
  // With held-out text of its own it may be what is learnt that is compared.
  load(data, "evalData: val\narms: {a: {}, b: {data: other}}");
  // What only the model and its data show.
  const run = (arms: string) =>
    compare(load(data, `arms: {a: {}, b: ${arms}}`), join(folder, "out"));
  await assert.rejects(run("{maxAddedShare: 1e-9}"), /arm b: the temperatures would add/);
  assert.deepEqual(await readdir(folder), ["data"]);
});

/** A shipped comparison at smaller sizes. */
async function shipped(name: string, values: object, seeds: string) {
  const file = await findRecipe(name, join(import.meta.dirname, "..", ".."));
  const small = { context: 64, reportWindows: 4, evalWindows: 2, device: "cpu", ...values };
  return loadComparison({ file, values: small, seeds });
}

test("the shipped comparison runs, at smaller sizes", async (t) => {
  const folder = await temporaryFolder(t);
  const comparison = await shipped("compare", { steps: 2 }, "0");
  const { result } = await compare(comparison, join(folder, "out"), { cacheDir: folder });
  assert.deepEqual(
    result!.arms.map(({ name, trained }) => [name, trained]),
    [
      ["temperatures", 1072],
      ["norms", 2304],
      ["biases", 4608],
      ["temperatures+norms", 3376],
    ],
  );
  assert.equal(result!.pairs.length, 6);
});

test("the paper's ablations run, a step each", async (t) => {
  const folder = await temporaryFolder(t);
  const comparison = await shipped("ablations", { steps: 1, context: 16 }, "0");
  const { result } = await compare(comparison, join(folder, "out"), { cacheDir: folder });
  const trained = Object.fromEntries(result!.arms.map(({ name, trained }) => [name, trained]));
  // 4 layers of 4 heads of 32 in 128: a token part has 33 values a head, its own layer 128 · 32 more.
  const heads = 16;
  const expected = {
    default: heads * (33 + 1 + 33),
    query: heads * 34,
    key: heads * 34,
    value: heads * 33,
    all: heads * 34 * 3,
    token: heads * 66,
    position: heads,
    constant: heads * 2,
    tanh: heads * 67,
    linear: heads * 67,
    sigmoid: heads * 67,
    code: 4,
    unshared: heads * (67 + 2 * 128 * 32),
    tied: 4 * 67,
    ssmax: heads * 2,
  };
  assert.deepEqual(trained, expected);
});

test("when an arm was as good as another in the end is read off its evaluations", async (t) => {
  const folder = await temporaryFolder(t);
  const values = { steps: 8, evalEvery: 1, batchSize: 2, warmupSteps: 0, schedule: "constant" };
  const { arms } = await shipped("pretrain", values, "0,1");
  const [plain, ssa] = arms.map(({ recipe }) => recipe);
  assert.ok(plain!.init === "random" && ssa!.tune.join() === "temperatures,all");
  // The same but for a rate that learns next to nothing.
  const slow = { name: "slow", recipe: { ...plain!, baseLearningRate: 2e-4 }, isSearched: false };
  const out = join(folder, "out");
  const options = { cacheDir: folder };
  const { result } = await compare({ arms: [slow, ...arms], seeds: [0, 1] }, out, options);
  const curve = async (arm: string) => {
    const runs = await Promise.all(
      [0, 1].map((seed) => readLines(join(out, `${arm}-seed${seed}`, "metrics.jsonl"))),
    );
    const losses = runs.map((lines) =>
      lines.filter(({ kind }) => kind === "evaluation").map((line) => Number(line["lossNats"])),
    );
    return losses[0]!.map((loss, step) => (loss + losses[1]![step]!) / 2);
  };
  const target = (await curve("slow")).at(-1)!;
  for (const arm of ["plain", "ssa"]) {
    const step = (await curve(arm)).findIndex((loss) => loss <= target);
    assert.ok(step > 0 && step < 8, `${arm}: ${step}`);
    const { equal } = result!.pairs.find((pair) => pair.arm === arm && pair.against === "slow")!;
    assert.deepEqual(equal, { arm, against: "slow", step, of: 8, ratio: 8 / step });
  }
  // Scored on other windows on the way, they say nothing of each other.
  const other = { name: "other", recipe: { ...plain!, evalWindows: 3 }, isSearched: false };
  const more = await compare({ arms: [slow, other], seeds: [0] }, out, options);
  assert.equal(more.result!.pairs[0]!.equal, null);
});
