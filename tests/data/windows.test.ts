import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import {
  evaluationWindows,
  evenSubset,
  numScored,
  packWindows,
  type Window,
  windowRule,
  type WindowRule,
} from "../../src/data/windows.ts";
import { Stretched, type TokenizedText } from "../../src/data/document.ts";

const plain = { hasFinalTarget: false, tail: "keep" } as const;

const textsOf = (lengths: readonly number[]) =>
  lengths.map((length) => ({ tokens: new Uint16Array(length) }));

/** Each window in a row of its own. */
const apart = (windows: readonly Window[]) => windows.map((window) => [window]);

/** Windows as [text, start, end, first scored token], all counted in the text. */
function spans(lengths: readonly number[], rule: WindowRule, limit?: number) {
  return evenSubset(evaluationWindows(textsOf(lengths), rule), limit).map(
    ({ text, start, length, scoreFrom }) => [text, start, start + length, start + scoreFrom],
  );
}

test("side by side: no window's first token is scored, a last shorter one counts", () => {
  assert.deepEqual(spans([10], { context: 4, stride: 4, ...plain }), [
    [0, 0, 4, 1],
    [0, 4, 8, 5],
    [0, 8, 10, 9],
  ]);
});

test("overlapping: each scores only tokens not scored before", () => {
  assert.deepEqual(spans([10], { context: 4, stride: 2, ...plain }), [
    [0, 0, 4, 1],
    [0, 2, 6, 4],
    [0, 4, 8, 6],
    [0, 6, 10, 8],
  ]);
  assert.deepEqual(spans([7], { context: 4, stride: 2, ...plain }), [
    [0, 0, 4, 1],
    [0, 2, 6, 4],
    [0, 4, 7, 6],
  ]);
});

test("windows never cross texts; a single token is no window", () => {
  assert.deepEqual(spans([3, 1, 5], { context: 4, stride: 4, ...plain }), [
    [0, 0, 3, 1],
    [2, 0, 4, 1],
  ]);
});

test("a dropped tail and a filled one", () => {
  assert.deepEqual(spans([10], { context: 4, stride: 4, hasFinalTarget: false, tail: "drop" }), [
    [0, 0, 4, 1],
    [0, 4, 8, 5],
  ]);
  // Each window has five tokens, so that the last of four inputs has a target; the last begins at 5 instead of 8.
  assert.deepEqual(spans([10], { context: 4, stride: 4, hasFinalTarget: true, tail: "backfill" }), [
    [0, 0, 5, 1],
    [0, 4, 9, 5],
    [0, 5, 10, 9],
  ]);
  assert.deepEqual(spans([3], { context: 4, stride: 4, hasFinalTarget: true, tail: "backfill" }), [
    [0, 0, 3, 1],
  ]);
});

test("a limit takes an even subset, the same each time", () => {
  const rule = { context: 4, stride: 4, ...plain };
  assert.deepEqual(
    spans([40], rule, 3).map(([, start]) => start),
    [4, 20, 32],
  );
  assert.equal(spans([40], rule, 11).length, 10);
});

test("a stride over the context is refused", () => {
  for (const stride of [0, 5]) {
    assert.throws(() => evaluationWindows(textsOf([9]), { context: 4, stride, ...plain }), {
      name: "UserError",
      message: `a stride of ${stride} does not fit a context of 4 tokens`,
    });
  }
  // Nobody named it: the convention did.
  const message = "hf-stride has a stride of 512, and the context is 256 tokens";
  assert.throws(() => windowRule("hf-stride", 256), { name: "UserError", message });
  assert.equal(windowRule("hf-stride", 256, 128).stride, 128);
});

test("every token but each text's first is scored once, side by side but each window's first", () => {
  const sizes = fc.record({
    lengths: fc.array(fc.nat(40), { maxLength: 4 }),
    context: fc.integer({ min: 1, max: 12 }),
    stride: fc.integer({ min: 1, max: 12 }),
    hasFinalTarget: fc.boolean(),
    tail: fc.constantFrom("keep" as const, "backfill" as const),
  });
  fc.assert(
    fc.property(sizes, ({ lengths, ...rule }) => {
      fc.pre(rule.stride <= rule.context);
      const windows = [...evaluationWindows(textsOf(lengths), rule)];
      const scored = windows.flatMap(({ text, start, length, scoreFrom }) => {
        assert.ok(scoreFrom >= 1 && scoreFrom < length);
        assert.ok(start >= 0 && length <= rule.context + Number(rule.hasFinalTarget));
        return Array.from(
          { length: length - scoreFrom },
          (_, i) => `${text}:${start + scoreFrom + i}`,
        );
      });
      const predictable = lengths.flatMap((length, text) =>
        Array.from({ length }, (_, at) => at)
          .filter((at) => at > 0)
          .filter((at) => rule.stride < rule.context || rule.hasFinalTarget || at % rule.stride > 0)
          .map((at) => `${text}:${at}`),
      );
      assert.deepEqual(scored, predictable);
      assert.equal(numScored(windows), predictable.length);
    }),
  );
});

test("packing: ids, the labels that follow them, padding without targets", () => {
  const texts = [{ tokens: Uint16Array.of(10, 11, 12, 13, 14, 15, 16) }];
  const windows = [...evaluationWindows(texts, { context: 4, stride: 2, ...plain })];
  const batches = [windows.slice(0, 2), windows.slice(2)].map((chosen) =>
    packWindows(texts, apart(chosen), { batchSize: 2, context: 4 }),
  );
  assert.deepEqual(
    batches.map(({ ids, labels, numTargets }) => [[...ids], [...labels], numTargets]),
    [
      [[10, 11, 12, 13, 12, 13, 14, 15], [11, 12, 13, -1, -1, 14, 15, -1], 5],
      [[14, 15, 16, 0, 0, 0, 0, 0], [-1, 16, -1, -1, -1, -1, -1, -1], 1],
    ],
  );
});

test("packing with a final target: every input has a label", () => {
  const texts = [{ tokens: Uint16Array.of(10, 11, 12, 13, 14, 15) }];
  const rule = { context: 4, stride: 4, hasFinalTarget: true, tail: "backfill" } as const;
  const windows = [...evaluationWindows(texts, rule)];
  const batch = packWindows(texts, apart(windows), { batchSize: 2, context: 4 });
  assert.deepEqual([...batch.ids], [10, 11, 12, 13, 11, 12, 13, 14]);
  assert.deepEqual([...batch.labels], [11, 12, 13, 14, -1, -1, -1, 15]);
});

test("prompts are seen and not scored: their labels are -1, and windows of them alone are left out", () => {
  const isTarget = Uint8Array.of(1, 0, 0, 1, 1, 0, 0, 0, 0, 0, 0, 1);
  const texts = [{ tokens: Uint16Array.from(isTarget, (_, i) => 10 + i), isTarget }];
  const windows = [...evaluationWindows(texts, { context: 4, stride: 4, ...plain })];
  assert.deepEqual(
    windows.map(({ start, numTargets }) => [start, numTargets]),
    [
      [0, 1],
      [8, 1],
    ],
  );
  const batch = packWindows(texts, apart(windows), { batchSize: 2, context: 4 });
  assert.deepEqual([...batch.ids], [10, 11, 12, 13, 18, 19, 20, 21]);
  assert.deepEqual([...batch.labels], [-1, -1, 13, -1, -1, -1, 21, -1]);
  assert.equal(batch.numTargets, 2);
});

/** As one walks along a text with a pencil, counting what was scored: the rules without any arithmetic of windows. */
function walked(texts: readonly TokenizedText[], rule: WindowRule): Window[] {
  const { context, stride, hasFinalTarget, tail } = rule;
  const span = context + (hasFinalTarget ? 1 : 0);
  const all: Window[] = [];
  for (const [text, { tokens, isTarget }] of texts.entries()) {
    const total = tokens.length;
    let scored = 0;
    for (let start = 0; scored < total; start += stride) {
      const end = Math.min(start + span, total);
      const isShort = end - start < span;
      if (isShort && tail === "drop") break;
      const begin = isShort && tail === "backfill" ? Math.max(0, end - span) : start;
      const first = Math.max(scored, start + 1);
      let numTargets = 0;
      for (let i = first; i < end; i++) numTargets += isTarget?.subarray(i, i + 1)[0] ?? 1;
      const window = {
        text,
        start: begin,
        length: end - begin,
        scoreFrom: first - begin,
        numTargets,
      };
      if (numTargets > 0) all.push(window);
      scored = end;
    }
  }
  return all;
}

test("windows that are asked for by number are those of a walk along the texts", () => {
  const rules = fc
    .record({
      context: fc.integer({ min: 1, max: 7 }),
      step: fc.nat(6),
      hasFinalTarget: fc.boolean(),
      tail: fc.constantFrom("keep", "drop", "backfill"),
    })
    .map(({ step, ...rule }) => ({ ...rule, stride: 1 + (step % rule.context) }));
  const masks = fc.array(fc.array(fc.nat(1), { maxLength: 40 }), { maxLength: 5 });
  fc.assert(
    fc.property(rules, masks, fc.boolean(), (rule, texts, hasMask) => {
      const all = texts.map((mask): TokenizedText => {
        const isTarget = hasMask && { isTarget: Uint8Array.from(mask) };
        return { tokens: new Uint16Array(mask.length), ...isTarget };
      });
      const windows = evaluationWindows(all, rule);
      const found = Array.from({ length: windows.length }, (_, i) => windows.at(i));
      assert.deepEqual(found, walked(all, rule));
      assert.deepEqual([...windows], found);
    }),
    { numRuns: 500 },
  );
});

test("10^12 tokens have their windows at once, and an even subset of them", () => {
  const tokens = new Stretched(1e12, () => new Uint16Array(0));
  const windows = evaluationWindows([{ tokens }], { context: 1024, stride: 1024, ...plain });
  assert.equal(windows.length, 1e12 / 1024);
  const chosen = evenSubset(windows, 3).map(({ start }) => start / 1024);
  assert.deepEqual(chosen, [162_760_416, 488_281_250, 813_802_083]);
});
