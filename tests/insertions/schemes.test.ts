// Schemes that scale logits, and the paper's own slopes, from end to end: files without tensors, exports with a cache,
// runs that start off the base, and what there is nothing to train of.

import assert from "node:assert/strict";
import { existsSync } from "node:fs";
import { readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { after, test } from "node:test";
import { type Engine, openEngine } from "../../src/engines/index.ts";
import { convert } from "../../src/export/convert.ts";
import { cachedExport } from "../../src/generate/generate.ts";
import { DEFAULT_TEMPERATURES, onlyParts } from "../../src/insertions/parts.ts";
import { openModel } from "../../src/model/open.ts";
import type { OpenedModel } from "../../src/model/opened.ts";
import { evaluate } from "../../src/run/evaluate.ts";
import { refused } from "../export/fixture.ts";
import { temporaryFolder } from "../helpers.ts";
import { logits as modelLogits } from "../model/logits.ts";
import { fixture, outcomeOf, readJson, smallRun, writeTokens } from "../run/small-run.ts";

const engine: Engine = await openEngine("cpu", { threads: 1 });
after(() => engine.dispose());

const none = { query: onlyParts(), key: onlyParts(), value: onlyParts() };
const logn = { ...none, query: { ...onlyParts(), logn: 7 } };
const yarn = { ...none, query: { ...onlyParts(), yarn: 4 } };
const ids = [5, 2, 8, 1, 9, 3, 4, 7];

const logits = (opened: OpenedModel) => modelLogits(engine, opened, ids);

// Its windows of 4 keys hide some of them.
for (const spec of ["ssmax", "logn", "sigmoid", "exp-exp", "own"])
  test(`${spec}: a cached, padded export has the logits of the window; a folder is read back`, async (t) => {
    const folder = await temporaryFolder(t);
    const source = { model: fixture("mistral"), adapter: join(fixture("mistral"), "ssa", spec) };
    const { verification } = await convert({
      ...source,
      target: "onnx",
      out: join(folder, "onnx"),
    });
    assert.equal(verification.what, "logits");
    await convert({ ...source, target: "safetensors", out: join(folder, "whole") });
    const opened = await openModel(source.model, source);
    assert.deepEqual(await logits(await openModel(join(folder, "whole"))), await logits(opened));
  });

test("parts without parameters are put in, written, and read back from a config alone", async (t) => {
  const folder = await temporaryFolder(t);
  const options = { model: fixture(), temperatures: logn };
  const opened = await openModel(fixture(), options);
  const expected = await logits(opened);
  assert.notDeepEqual(expected, await logits(await openModel(fixture())));
  for (const target of ["safetensors", "adapter"] as const) {
    const out = join(folder, target);
    await convert({ ...options, target, out });
    const back = await openModel(out);
    assert.deepEqual(back.temperatures!.insertion.spec, { ...DEFAULT_TEMPERATURES, ...logn });
    assert.deepEqual(await logits(back), expected);
    await assert.rejects(openModel(out, options), refused(/has temperatures already/));
  }
  await convert({ ...options, target: "onnx", out: join(folder, "onnx") });
});

test("an export that is kept is of the parts that are stated now", async (t) => {
  const folder = await temporaryFolder(t);
  const model = join(folder, "model");
  const options = { model, cacheFolder: join(folder, "cache") };
  await convert({
    ...options,
    model: fixture(),
    temperatures: logn,
    target: "safetensors",
    out: model,
  });
  const first = await cachedExport(options);
  assert.equal(await cachedExport(options), first);
  const path = join(model, "ssa_config.json");
  await writeFile(path, (await readFile(path, "utf8")).replace('"logn": 7', '"logn": 9'));
  const stated = await cachedExport(options);
  assert.notEqual(stated, first);
  // Temperatures that are put in by the call alone are in none of the model's files.
  const asked = async (temperatures?: object) =>
    cachedExport({ ...options, model: fixture(), ...(temperatures && { temperatures }) });
  const two = { ...none, query: { ...onlyParts(), logn: 2 } };
  const others = [await asked(), await asked(logn), await asked(two)];
  assert.equal(new Set(others).size, 3);
});

test("YaRN's factor becomes part of the weights, but not before a norm", async (t) => {
  const folder = await temporaryFolder(t);
  for (const [variant, isFolded] of [
    ["gpt_neox", true],
    ["qwen3", false],
  ] as const) {
    const [model, out] = [fixture(variant), join(folder, variant)];
    await convert({ model, temperatures: yarn, target: "safetensors", out });
    assert.equal(existsSync(join(out, "ssa_config.json")), !isFolded);
    const expected = await logits(await openModel(model, { temperatures: yarn }));
    const found = await logits(await openModel(out));
    const largest = expected.reduce((max, v, i) => Math.max(max, Math.abs(v - found[i]!)), 0);
    assert.ok(largest <= 1e-5, `${largest}`);
  }
});

const runs = {
  trained: { temperatures: { ...none, query: { ...onlyParts(), ssmax: 0.4 } } },
  bare: { temperatures: logn, tune: "temperatures,norms" },
  sigmoid: { position: "sigmoid", tie: "layers" },
} as const;

for (const [name, recipe] of Object.entries(runs))
  test(`${name}: a run reports the perplexity at insertion, and continues to the same`, async (t) => {
    const folder = await temporaryFolder(t);
    const data = await writeTokens(join(folder, "data"));
    const [whole, parts] = [join(folder, "whole"), join(folder, "parts")];
    const { events, ...result } = await smallRun({ engine, folder: whole, data, recipe });
    assert.ok(result.outcome === "finished");
    const { before, inserted, after } = result.report;
    const how = { data: join(data, "val.bin"), device: "cpu" };
    const base = await evaluate({ model: fixture(), ...how });
    assert.ok(Math.abs(before.lossNats - base.lossNats) < 1e-6);
    assert.ok(Math.abs(inserted!.lossNats - before.lossNats) > 1e-4);
    assert.ok(after.lossNats < inserted!.lossNats);
    const first = events.find((event) => event.kind === "evaluated")!;
    assert.ok(Math.abs(first.lossNats - inserted!.lossNats) < 0.2, "at step 0 it is inserted");
    const note = events.find((event) => event.kind === "note" && /not the base/.test(event.text));
    assert.ok(note);
    // What is put into the base at once is the same.
    if (name !== "sigmoid") {
      const { temperatures } = recipe as { temperatures: typeof logn };
      const again = await evaluate({ model: fixture(), temperatures, ...how });
      assert.ok(Math.abs(inserted!.lossNats - again.lossNats) < 1e-6);
    }
    const stopAt = (event: { kind: string; step?: number }) =>
      event.kind === "step" && event.step === 5;
    await smallRun({ engine, folder: parts, data, recipe, stopAt });
    const unfinished = await openModel(parts);
    assert.ok(unfinished.temperatures, "a checkpoint has them too");
    await smallRun({ engine, folder: parts, data, recipe, isResumed: true });
    assert.deepEqual(await outcomeOf(parts), await outcomeOf(whole));
    const report = await readJson(join(parts, "report.json"));
    assert.deepEqual(report["inserted"], inserted);
    assert.deepEqual(
      (await openModel(join(parts, "final"))).temperatures!.insertion.spec,
      unfinished.temperatures.insertion.spec,
    );
  });

test("a run that starts as the base has no third perplexity", async (t) => {
  const folder = join(await temporaryFolder(t), "run");
  const recipe = { temperatures: { ...none, query: onlyParts("ssmaxBias") }, tie: "heads" };
  const result = await smallRun({ engine, folder, recipe });
  assert.ok(result.outcome === "finished" && result.report.inserted === undefined);
  assert.equal(result.report.parameters.added, 4);
});
