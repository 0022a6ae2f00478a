// Losses of windows: the same in any batch and by any engine's rounding, and never a silent NaN.

import assert from "node:assert/strict";
import { after, test } from "node:test";
import { fileURLToPath } from "node:url";
import { openModel } from "../../src/model/open.ts";
import { createRandom } from "../../src/core/random.ts";
import type { TokenizedText } from "../../src/data/document.ts";
import { evaluationWindows } from "../../src/data/windows.ts";
import { openEngine } from "../../src/engines/index.ts";
import { openScorer } from "../../src/evaluate/scorer.ts";
import { checkFinite } from "../../src/evaluate/evaluation.ts";
import { planWindows, type WindowPlan } from "../../src/evaluate/window-plan.ts";
import { allClose } from "../helpers.ts";

const engine = await openEngine("cpu", { threads: 1 });
after(() => engine.dispose());

const fixture = (name: string) => fileURLToPath(new URL(`../fixtures/${name}`, import.meta.url));

function tokens(length: number, vocabSize: number): TokenizedText {
  const random = createRandom(3);
  return { tokens: Uint16Array.from({ length }, () => random.uniform() * vocabSize) };
}

for (const name of ["gpt2", "llama", "gpt_neox"])
  test(`${name}: batches of 1 and of 8 agree, with overlapping windows and a short last one`, async () => {
    const opened = await openModel(fixture(name));
    const texts = [tokens(131, 37), tokens(9, 37)];
    const context = 16;
    const rule = { context, stride: 6, hasFinalTarget: false, tail: "keep" } as const;
    const windows = [...evaluationWindows(texts, rule)];
    const scores = [];
    for (const batchSize of [1, 8]) {
      const scorer = await openScorer(engine, opened, { batchSize, context });
      scores.push(await scorer.score(texts, windows));
      await scorer.dispose();
    }
    const [single, eight] = scores as [(typeof scores)[0], (typeof scores)[0]];
    allClose(
      single.map(({ nats }) => nats),
      eight.map(({ nats }) => nats),
      { rtol: 1e-6 },
    );
    assert.deepEqual(
      single.map(({ numTokens }) => numTokens),
      eight.map(({ numTokens }) => numTokens),
    );
    // Every token but the first of each text is scored once.
    assert.equal(
      single.reduce((sum, { numTokens }) => sum + numTokens, 0),
      130 + 8,
    );
  });

for (const name of ["gpt2", "mistral"])
  test(`${name}: many short texts share rows, and each window's loss is what it is alone`, async () => {
    const opened = await openModel(fixture(name));
    const random = createRandom(4);
    const texts = Array.from({ length: 60 }, () =>
      tokens(2 + Math.floor(random.uniform() * 9), 41),
    );
    const long = Array.from({ length: 8 }, () => tokens(34, 41));
    const losses = async (plan: WindowPlan, batchSize = 3) => {
      const how = { ...plan.groups[0]!, batchSize, needsArgmax: true };
      const scorer = await openScorer(engine, opened, how);
      let numRuns = 0;
      const found = await scorer.score(plan.texts, plan.windows, { onBatch: () => numRuns++ });
      await scorer.dispose();
      return { found, numRuns };
    };
    const planOf = (texts: readonly TokenizedText[], mayPack?: boolean) =>
      planWindows(opened, corpusOf(texts), { context: 16, ...(mayPack === false && { mayPack }) });
    const packed = await losses(planOf(texts));
    const apart = await losses(planOf(texts, false));
    allClose(
      packed.found.map(({ nats }) => nats),
      apart.found.map(({ nats }) => nats),
      { rtol: 1e-6 },
    );
    for (const [i, { numTokens, isArgmax }] of packed.found.entries()) {
      assert.equal(numTokens, apart.found[i]!.numTokens);
      assert.deepEqual(isArgmax, apart.found[i]!.isArgmax);
    }
    assert.equal(apart.numRuns, 20);
    assert.ok(packed.numRuns <= 7, `${packed.numRuns} runs`);
    // Windows that are full, or nearly so, are scored as they always were.
    const full = planOf(long);
    assert.equal(full.isPacked, false);
    assert.deepEqual(await losses(full), await losses(planOf(long, false)));
  });

test("scoring stops between two batches when its signal is given", async () => {
  const opened = await openModel(fixture("gpt2"));
  const texts = [tokens(200, 41)];
  const { windows } = planWindows(opened, corpusOf(texts), {});
  const scorer = await openScorer(engine, opened, { batchSize: 2, context: 16 });
  const stop = new AbortController();
  let scored = 0;
  const onBatch = (done: { windows: number }) => {
    scored = done.windows;
    if (scored === 4) stop.abort();
  };
  const { signal } = stop;
  await assert.rejects(scorer.score(texts, windows, { signal, onBatch }), { name: "AbortError" });
  assert.equal(scored, 4);
  await scorer.dispose();
});

test("a loss that is not a number is told with its place", async () => {
  const opened = await openModel(fixture("gpt2"));
  const { windows } = planWindows(opened, corpusOf([tokens(20, 41), tokens(40, 41)]), {});
  const losses = windows.map(() => ({ nats: 1, numTokens: 1 }));
  checkFinite(losses, windows);
  losses[3] = { nats: Number.NaN, numTokens: 1 };
  assert.throws(() => checkFinite(losses, windows), /the loss is NaN on tokens 16 to 31 of text 2/);
});

function corpusOf(texts: readonly TokenizedText[]) {
  const numTokens = texts.reduce((sum, { tokens }) => sum + tokens.length, 0);
  const rest = { utf8Bytes: undefined, numWords: null, dataSha256: "", fromCache: false };
  return { texts, numTokens, numTargets: numTokens, ...rest };
}
