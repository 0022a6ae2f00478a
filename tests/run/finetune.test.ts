// What a run trains, how it is batched and stopped, and that its report and final/ say the same.

import assert from "node:assert/strict";
import { readdir } from "node:fs/promises";
import { join } from "node:path";
import { after, test } from "node:test";
import { openModel } from "../../src/model/open.ts";
import { findDataFiles, selectSplit } from "../../src/data/readers/files.ts";
import { openEngine } from "../../src/engines/index.ts";
import { readLines } from "../../src/files/json.ts";
import type { RunReport } from "../../src/evaluate/results.ts";
import { evaluatePlan } from "../../src/evaluate/evaluation.ts";
import { tasks } from "../../src/evaluate/tasks/index.ts";
import { allClose, temporaryFolder } from "../helpers.ts";
import {
  fixture,
  outcomeOf,
  readJson,
  smallRun,
  type SmallRun,
  tensorsIn,
  writeTokens,
} from "./small-run.ts";

const engine = await openEngine("cpu", { threads: 1 });
after(() => engine.dispose());

/** A run to its end, with the report as it lies on disk. */
async function finished(run: Omit<SmallRun, "engine">) {
  const { outcome } = await smallRun({ engine, ...run });
  assert.equal(outcome, "finished");
  const report = (await readJson(join(run.folder, "report.json"))) as unknown as RunReport;
  return { report, final: await tensorsIn(join(run.folder, "final")) };
}

/** `ssa eval --model` on the run's held-out data. */
async function evaluateFolder(folder: string, data: string) {
  const model = await openModel(folder, { resolve: (name) => Promise.resolve(name) });
  const split = selectSplit(await findDataFiles(data), "validation");
  const plan = await tasks.perplexity.plan(model, split, {});
  return evaluatePlan(engine, model, plan, { batchSize: 1 });
}

const names = (
  final: Readonly<Record<string, number[]>>,
  other: Readonly<Record<string, number[]>>,
) => Object.keys(final).filter((name) => String(final[name]) !== String(other[name]));

test("batch 4 without accumulation trains as batch 1 with 4 micro batches", async (t) => {
  const folder = await temporaryFolder(t);
  const data = await writeTokens(join(folder, "data"));
  const train = async (batchSize: number, gradientAccumulationSteps: number) => {
    const run = join(folder, `${batchSize}`);
    // 76 blocks, the last one short: 20 steps of 4 go through it.
    const recipe = { batchSize, gradientAccumulationSteps, steps: 20 };
    return finished({ folder: run, data, recipe });
  };
  const [wide, long] = [await train(4, 1), await train(1, 4)];
  assert.deepEqual(Object.keys(wide.final), Object.keys(long.final));
  for (const [name, values] of Object.entries(wide.final))
    allClose(values, long.final[name]!, { atol: 1e-6 });
  allClose([wide.report.after.lossNats], [long.report.after.lossNats], { rtol: 1e-6 });
});

test("training and scoring by turns give the same run, bit by bit", async (t) => {
  const folder = await temporaryFolder(t);
  const data = await writeTokens(join(folder, "data"));
  const outcomes = [];
  for (const takesTurns of [false, true]) {
    const run = join(folder, String(takesTurns));
    await smallRun({ engine, folder: run, data, takesTurns });
    outcomes.push(await outcomeOf(run));
  }
  assert.deepEqual(outcomes[1], outcomes[0]);
});

test("tune trains what it names and leaves every other weight as it was", async (t) => {
  const folder = await temporaryFolder(t);
  const data = await writeTokens(join(folder, "data"));
  const cases: readonly [tune: string, trained: RegExp, added: number][] = [
    ["temperatures", /\.ssa\./, 90],
    ["norms", /ln_(1|2|f)\.(weight|bias)$/, 0],
    ["biases", /(?<!ln_[12f])\.bias$/, 0],
    ["temperatures,norms", /\.ssa\.|ln_(1|2|f)\.(weight|bias)$/, 90],
    ["all", /^(?!.*\.ssa\.)/, 0],
    ["temperatures,all", /./, 90],
  ];
  const base = await tensorsIn(fixture());
  const isBuffer = (name: string) => /\.attn\.(masked_)?bias$/.test(name);
  for (const [tune, trained, added] of cases) {
    const run = join(folder, tune);
    const { final, report } = await finished({ folder: run, data, recipe: { tune, steps: 3 } });
    const expected = Object.keys(final).filter((name) => trained.test(name) && !isBuffer(name));
    assert.deepEqual(names(final, base), expected, tune);
    assert.equal(report.parameters.added, added, tune);
    assert.ok(report.parameters.trained! > 0 && report.parameters.trained! >= added, tune);
    assert.equal(report.temperatures.length, added > 0 ? 4 : 0, tune);
    assert.ok(report.delta.percent < 0, `${tune}: ${report.delta.percent} %`);
  }
});

test("init: random trains a model of the base's shape from nothing", async (t) => {
  const folder = join(await temporaryFolder(t), "run");
  const recipe = { init: "random", tune: "all", baseLearningRate: 0.01, steps: 20 };
  const { report, final } = await finished({ folder, recipe });
  const base = await tensorsIn(fixture());
  // A model that knows nothing gives every token of the vocabulary the same chance.
  allClose([report.before.lossNats], [Math.log(41)], { rtol: 0.02 });
  assert.ok(report.after.lossNats < report.before.lossNats - 0.1, `${report.after.lossNats}`);
  for (const name of names(base, final)) assert.ok(name in base);
  assert.equal(report.before.modelSha256, "random");
  const again = await evaluateFolder(join(folder, "final"), `${folder}-data`);
  assert.deepEqual(again.result, report.after);
});

test("choices that would train nothing, less than they say, or too much are refused", async (t) => {
  const folder = join(await temporaryFolder(t), "run");
  const refused = (recipe: Readonly<Record<string, unknown>>, message: RegExp, model = "gpt2") =>
    assert.rejects(smallRun({ engine, folder, recipe, model: fixture(model) }), message);
  await refused({ tune: "biases" }, /tune names biases, but .* has none/, "llama");
  await refused({ init: "random" }, /init: random leaves weights that do not train random/);
  await refused({ maxAddedShare: 0.005 }, /would add 0\.967 % parameters, more than 0\.5 %/);
  await refused({ context: 17 }, /a context of 17 tokens does not fit/);
  await assert.rejects(readdir(folder), /ENOENT/);
});

test("a run that explodes stops, and names the step and the last good checkpoint", async (t) => {
  const folder = join(await temporaryFolder(t), "run");
  const recipe = {
    tune: "all",
    baseLearningRate: 1e38,
    maxGradNorm: 1e9,
    saveEvery: 1,
    warmupSteps: 0,
  };
  await assert.rejects(smallRun({ engine, folder, recipe }), (error: Error) => {
    assert.match(
      error.message,
      /^step \d+: .*(NaN|Infinity|not finite); last good checkpoint: that of step \d$/,
    );
    return true;
  });
});

test("early stopping ends the run, and final/ holds the best weights, not the last", async (t) => {
  const folder = join(await temporaryFolder(t), "run");
  const recipe = {
    tune: "norms,temperatures",
    learningRate: 0.3,
    schedule: "constant",
    steps: 200,
    evalEvery: 2,
    evalWindows: "all",
    saveEvery: 50,
    earlyStopping: { patience: 3 },
  };
  const { report } = await finished({ folder, recipe });
  const metrics = await readLines(join(folder, "metrics.jsonl"));
  const evaluations = metrics.filter(({ kind }) => kind === "evaluation") as unknown as {
    step: number;
    lossNats: number;
  }[];
  const best = evaluations.toSorted((a, b) => a.lossNats - b.lossNats)[0]!;
  assert.equal(report.finalStep, best.step);
  assert.equal(report.steps, best.step + 6);
  assert.ok(report.steps < 200);
  allClose([report.after.lossNats], [best.lossNats], { rtol: 1e-6 });
  assert.ok((await readdir(folder)).includes(`step-${String(best.step).padStart(6, "0")}`));
});

for (const final of ["model", "adapter"])
  test(`final: ${final} opens on its own and gives the report's perplexity exactly`, async (t) => {
    const folder = await temporaryFolder(t);
    const data = await writeTokens(join(folder, "data"));
    for (const name of ["gpt2", "llama", "gpt_neox"]) {
      const model = fixture(name);
      const run = join(folder, name);
      const { report } = await finished({ folder: run, data, model, recipe: { final, steps: 3 } });
      const { result, temperatures } = await evaluateFolder(join(run, "final"), data);
      assert.deepEqual(result, report.after, name);
      assert.deepEqual(temperatures, report.temperatures, name);
      const files = (await readdir(join(run, "final"))).sort();
      if (final === "adapter")
        assert.deepEqual(files, ["ssa_adapter.safetensors", "ssa_config.json"]);
      const before = await evaluateFolder(model, data);
      allClose([report.before.lossNats], [before.result.lossNats], { rtol: 1e-9 });
    }
  });

test("the report has the fields that other programs read", async (t) => {
  const folder = join(await temporaryFolder(t), "run");
  const { report } = await finished({ folder });
  const fields = (value: object) => Object.keys(value).sort().join(" ");
  const perplexity =
    "bitsPerByte context convention dataSha256 lossNats mask modelSha256 numTokens perplexity standardError " +
    "stride task windowTokens windows windowsTotal wordPerplexity";
  assert.equal(
    fields(report),
    "after before chosen delta device elapsedSeconds finalStep heldOut parameters peakRssBytes recipe sources steps temperatures tokensPerSecond",
  );
  assert.equal(fields(report.before), perplexity);
  assert.equal(fields(report.after), perplexity);
  assert.equal(fields(report.delta), "interval95 lossNats percent perplexity standardError");
  assert.equal(fields(report.parameters), "added base share trained");
  assert.equal(fields(report.temperatures[0]!), "layer max mean min projection");
  const { before, after, delta } = report;
  allClose([delta.lossNats], [after.lossNats - before.lossNats], { atol: 1e-12 });
  allClose([delta.percent], [100 * (after.perplexity / before.perplexity - 1)], { rtol: 1e-9 });
  assert.equal(before.numTokens, after.numTokens);
  assert.deepEqual([before.context, before.stride, before.convention], [16, 16, "disjoint"]);
  const [low, high] = delta.interval95!;
  assert.ok(low < delta.percent && delta.percent < high);
});
