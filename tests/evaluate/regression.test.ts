// The gate's arithmetic and refusals, without a model.

import assert from "node:assert/strict";
import { existsSync } from "node:fs";
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { test } from "node:test";
import {
  checkComparable,
  compareWithBaseline,
  checkBaselinePlace,
  readBaseline,
  writeBaseline,
} from "../../src/evaluate/results.ts";
import type { PerplexityResult } from "../../src/evaluate/window-plan.ts";
import { allClose, temporaryFolder } from "../helpers.ts";

const result: PerplexityResult = {
  task: "perplexity",
  lossNats: 3,
  perplexity: Math.exp(3),
  numTokens: 1000,
  standardError: 0.01,
  bitsPerByte: null,
  wordPerplexity: null,
  convention: "disjoint",
  context: 256,
  stride: 256,
  mask: "all",
  windowTokens: 1004,
  windows: 4,
  windowsTotal: 4,
  dataSha256: "aa",
  modelSha256: "bb",
};
const risen = (percent: number): PerplexityResult => {
  const lossNats = result.lossNats + Math.log1p(percent / 100);
  return { ...result, lossNats, perplexity: Math.exp(lossNats), modelSha256: "cc" };
};

test("the rise is of perplexity, in percent; rounding is none", () => {
  const compare = (percent: number, allowed: number) =>
    compareWithBaseline(risen(percent), result, allowed);
  allClose([compare(0.7, 0.5).percent, compare(-5, 0).percent], [0.7, -5], { rtol: 1e-9 });
  assert.equal(compare(0.7, 0.5).hasRegressed, true);
  assert.equal(compare(0.49, 0.5).hasRegressed, false);
  assert.equal(compare(-5, 0).hasRegressed, false);
  assert.equal(compare(1e-4, 0).hasRegressed, false);
  assert.equal(compare(2e-3, 0).hasRegressed, true);
  assert.equal(compare(Number.NaN, 50).hasRegressed, true);
});

test("what was measured otherwise is not compared, and the hint says how it was measured", () => {
  const changes: readonly [Partial<PerplexityResult>, RegExp][] = [
    [{ convention: "gptq" }, /convention is disjoint, was gptq/],
    [{ context: 512 }, /context is 256, was 512/],
    [{ stride: 128 }, /stride is 256, was 128/],
    [{ dataSha256: "dd" }, /dataSha256 is aa, was dd/],
    [{ numTokens: 999 }, /numTokens is 1000, was 999/],
    [{ mask: "targets" }, /mask is all, was targets/],
  ];
  for (const [change, message] of changes)
    assert.throws(() => checkComparable(result, { ...result, ...change }), {
      message,
      exitCode: 2,
    });
  checkComparable(result, { ...result, modelSha256: "ee", standardError: null });
  const hints: readonly [Partial<PerplexityResult>, RegExp][] = [
    [{ context: 512, windows: 2 }, /: --context 512 --windows 2, on/],
    [{ convention: "stride", stride: 64 }, /: --context 256 --stride 64, on/],
    [{ convention: "gptq" }, /: --convention gptq, on/],
  ];
  for (const [change, hint] of hints)
    assert.throws(() => checkComparable(result, { ...result, ...change }), { hint });
});

test("a baseline that could not be read back is not written", async (t) => {
  const path = join(await temporaryFolder(t), "baseline.json");
  await writeBaseline(path, result);
  assert.deepEqual(await readBaseline(path), result);
  const infinite = { ...result, lossNats: 800, perplexity: Infinity };
  await assert.rejects(writeBaseline(`${path}2`, infinite), {
    name: "UserError",
    message: /a perplexity of Infinity is no baseline/,
  });
  assert.ok(!existsSync(`${path}2`));
});

test("a baseline replaces nothing but a baseline", async (t) => {
  const folder = await temporaryFolder(t);
  const [saved, report] = ["baseline.json", "report.json"].map((name) => join(folder, name));
  await writeBaseline(saved!, result);
  await checkBaselinePlace(saved!);
  await checkBaselinePlace(join(folder, "new.json"));
  await writeFile(report!, JSON.stringify({ before: risen(9), after: result }));
  const others = [report!, folder, import.meta.filename];
  for (const path of others)
    await assert.rejects(checkBaselinePlace(path), /exists and is no saved baseline/);
  await assert.rejects(checkBaselinePlace(join(folder, "no", "b.json")), /there is no folder/);
});

test("another task's result is refused; one saved before there were tasks is of perplexity", async (t) => {
  const path = join(await temporaryFolder(t), "baseline.json");
  const { task: _, mask: __, ...old } = result;
  await writeFile(path, JSON.stringify(old));
  checkComparable(result, await readBaseline(path));
  const other = { task: "lambada", perplexity: 9, context: 256, dataSha256: "aa", numTokens: 1000 };
  await writeFile(path, JSON.stringify(other));
  const baseline = await readBaseline(path);
  checkComparable({ ...other, dataSha256: "aa" }, baseline);
  const wrong = {
    message: /task is perplexity, was lambada/,
    hint: /: --task lambada --context 256/,
  };
  assert.throws(() => checkComparable(result, baseline), wrong);
});

test("a baseline is a saved result or a report's after; nothing else", async (t) => {
  const folder = await temporaryFolder(t);
  const read = async (content: unknown) => {
    const path = join(folder, "baseline.json");
    await writeFile(path, JSON.stringify(content));
    return readBaseline(path);
  };
  assert.deepEqual(await read(result), result);
  assert.deepEqual(await read({ before: risen(9), after: result }), result);
  for (const wrong of [
    null,
    7,
    "text",
    [],
    {},
    { after: null },
    { after: { perplexity: 3 } },
    { ...result, lossNats: null },
    { ...result, lossNats: "2" },
    { ...result, perplexity: result.perplexity * 1.01 },
    { ...result, perplexity: undefined, lossNats: undefined, outcomes: "yes" },
  ])
    await assert.rejects(
      read(wrong),
      /neither a report.json nor a saved baseline|must hold a JSON object/,
    );
});
