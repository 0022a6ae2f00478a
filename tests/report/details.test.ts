// What a run keeps for its page: losses by place and the tokens that changed most, against what was put in; and that a
// run which was stopped keeps the same.

import assert from "node:assert/strict";
import { join } from "node:path";
import { after, test } from "node:test";
import { evaluationWindows } from "../../src/data/windows.ts";
import { openEngine } from "../../src/engines/index.ts";
import { compareTokens, tokenLosses } from "../../src/evaluate/details.ts";
import type { RunReport } from "../../src/evaluate/results.ts";
import type { RunDetails } from "../../src/report/data.ts";
import { allClose, temporaryFolder } from "../helpers.ts";
import { readJson, smallRun, writeTokens } from "../run/small-run.ts";

const engine = await openEngine("cpu", { threads: 1 });
after(() => engine.dispose());

test("means by place are of the tokens that stand there and count, the list of the largest changes", () => {
  const context = 64;
  const tokens = Uint16Array.from({ length: 500 }, (_, i) => i);
  const isTarget = Uint8Array.from(tokens, (i) => +(i % 3 > 0));
  const texts = [{ tokens, isTarget }, { tokens: tokens.subarray(0, 40) }];
  const rule = { context, stride: context, hasFinalTarget: false, tail: "keep" } as const;
  const windows = [...evaluationWindows(texts, rule)];
  const conditions = {
    ...({ task: "perplexity", convention: "disjoint", mask: "targets" } as const),
    context,
    stride: context,
    dataSha256: "",
    numTokens: 0,
  };
  const plan = { texts, windows, conditions };
  // A token's loss is its place, and after training twice that; but for three that are told apart.
  const changed = new Map([
    [100, 1000],
    [200, -500],
    [301, -700],
  ]);
  const places = windows.map(({ text, start, length, scoreFrom }) =>
    Array.from({ length }, (_, i) => i).filter(
      (i) => i >= scoreFrom && texts[text]!.isTarget?.[start + i] !== 0,
    ),
  );
  const lossesOf = (factor: number) =>
    places.map((list, w) => {
      const { text, start } = windows[w]!;
      const more = (i: number) => (text === 0 && factor > 1 && changed.get(start + i)) || 0;
      const tokenNats = Float32Array.from(list, (i) => factor * i + more(i));
      return { nats: 0, numTokens: list.length, tokenNats };
    });
  const [before, later] = [1, 2].map((factor) => tokenLosses(plan, lossesOf(factor)));
  const spell = (ids: Iterable<number>) => Array.from(ids, (id) => `<${id}>`);
  const found = compareTokens(plan, before!, later!, spell);
  const all = places.flat();
  assert.equal(found.sampledTokens, all.length);
  assert.equal(
    found.places.reduce((sum, { numTokens }) => sum + numTokens, 0),
    all.length,
  );
  for (const { from, to, numTokens, lossNats } of found.places) {
    const here = all.filter((place) => place >= from && place <= to);
    assert.equal(numTokens, here.length);
    const mean = here.reduce((sum, place) => sum + place, 0) / here.length;
    if (![100, 200, 301].some((token) => token % context >= from && token % context <= to))
      allClose(lossNats, [mean, 2 * mean], { rtol: 1e-4 });
  }
  assert.deepEqual(
    found.gained.map(({ text }) => text),
    ["<301>", "<200>"],
  );
  assert.equal(found.lost[0]!.text, "<100>");
  const { before: left, after: right, place, nats } = found.gained[0]!;
  assert.ok(left.endsWith("<299><300>") && right.startsWith("<302><303>"));
  assert.equal(place, 301 % context);
  assert.deepEqual(nats, [45, 90 - 700]);
});

test("a run's details add up to its report, and do not depend on whether it was stopped", async (t) => {
  const folder = await temporaryFolder(t);
  const data = await writeTokens(join(folder, "data"));
  const [whole, parts] = ["whole", "parts"].map((name) => join(folder, name));
  await smallRun({ engine, folder: whole!, data });
  const stopAt = (event: { kind: string; step?: number }) =>
    event.kind === "step" && event.step === 5;
  await smallRun({ engine, folder: parts!, data, stopAt });
  await smallRun({ engine, folder: parts!, data, isResumed: true });
  const [details, others] = await Promise.all(
    [whole!, parts!].map(
      async (run) => (await readJson(join(run, "details.json"))) as unknown as RunDetails,
    ),
  );
  assert.deepEqual({ ...others, machine: details!.machine }, details);
  const report = (await readJson(join(whole!, "report.json"))) as unknown as RunReport;
  const sum = (i: number) =>
    details!.places!.reduce((sum, of) => sum + of.numTokens * of.lossNats[i]!, 0);
  const { numTokens } = report.after;
  const means = [sum(0) / numTokens, sum(1) / numTokens];
  allClose(means, [report.before.lossNats, report.after.lossNats], { rtol: 1e-4 });
  // The mean over heads is the layer's.
  for (const [i, { layer, projection, mean }] of details!.heads.entries()) {
    const of = report.temperatures[i]!;
    assert.deepEqual([layer, projection], [of.layer, of.projection]);
    allClose([mean.reduce((sum, tau) => sum + tau, 0) / mean.length], [of.mean], { rtol: 1e-9 });
  }
});
