import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { createRandom } from "../../src/core/random.ts";
import type { TokenizedText } from "../../src/data/document.ts";
import { type DataCursor, trainingSet } from "../../src/data/training.ts";
import { trainingBatches } from "./one-source.ts";

const start = { seed: 5, epoch: 0, index: 0 };

/** Of one stream of tokens. */
const batchesOf = (
  stream: TokenizedText,
  { context, cursor }: { readonly context: number; readonly cursor: DataCursor },
) => {
  const set = trainingSet([stream], { packing: "stream", context, endOfText: 0, prefix: [] });
  return { numBlocks: set.facts.rows, ...trainingBatches(set, cursor) };
};

test("texts are joined by the end-of-text token, but where a prefix says the same", () => {
  const texts = [Uint16Array.of(1, 2), Uint16Array.of(3), Uint16Array.of(4, 5)];
  const join = (endOfText: number | undefined, prefix: readonly number[]) => [
    ...trainingSet(
      texts.map((tokens) => ({ tokens })),
      { packing: "stream", context: 4, endOfText, prefix },
    ).stream.tokens,
  ];
  assert.deepEqual(join(9, []), [1, 2, 9, 3, 9, 4, 5]);
  assert.deepEqual(join(9, [8]), [1, 2, 9, 3, 9, 4, 5]);
  assert.deepEqual(join(9, [9]), [1, 2, 3, 4, 5]);
  assert.deepEqual(join(undefined, []), [1, 2, 3, 4, 5]);
});

test("in an epoch every token but the first is a target once, after the token before it", () => {
  const stream = Uint16Array.from({ length: 24 }, (_, i) => 100 + i);
  const batches = batchesOf({ tokens: stream }, { context: 5, cursor: start });
  assert.equal(batches.numBlocks, 5);
  const targets: number[] = [];
  for (let block = 0; block < 5; block++) {
    const { ids, labels, numTargets } = batches.next(1);
    assert.equal(ids.length, 5);
    assert.equal(numTargets, labels.filter((label) => label >= 0).length);
    for (const [at, label] of labels.entries()) {
      if (label < 0) continue;
      assert.equal(label, ids[at]! + 1);
      targets.push(label);
    }
  }
  assert.deepEqual(
    targets.sort((a, b) => a - b),
    [...stream].slice(1),
  );
});

test("epochs have different orders, the same for the same seed", () => {
  const stream = Uint32Array.from({ length: 101 }, (_, i) => i);
  const order = (seed: number) => {
    const batches = batchesOf({ tokens: stream }, { context: 5, cursor: { ...start, seed } });
    return Array.from({ length: 40 }, () => batches.next(1).ids[0]!);
  };
  assert.deepEqual(order(1), order(1));
  assert.notDeepEqual(order(1), order(2));
  const [first, second] = [order(1).slice(0, 20), order(1).slice(20)];
  assert.notDeepEqual(first, second);
  assert.deepEqual(new Set(first), new Set(second));
});

test("a run continued from a cursor, also across an epoch's end, reads on as if not interrupted", () => {
  const stream = Uint16Array.from({ length: 52 }, (_, i) => i);
  const whole = batchesOf({ tokens: stream }, { context: 5, cursor: start });
  for (let batch = 0; batch < 9; batch++) {
    const cursor = whole.cursor();
    const resumed = batchesOf({ tokens: stream }, { context: 5, cursor });
    const expected = whole.next(3);
    assert.deepEqual(resumed.next(3), expected);
    assert.deepEqual(resumed.cursor(), whole.cursor());
  }
  assert.equal(whole.cursor().epoch, 2);
});

test("one batch of four rows is four batches of one", () => {
  const stream = Uint16Array.from({ length: 52 }, (_, i) => i);
  const four = batchesOf({ tokens: stream }, { context: 5, cursor: start }).next(4);
  const one = batchesOf({ tokens: stream }, { context: 5, cursor: start });
  const rows = Array.from({ length: 4 }, () => one.next(1));
  assert.deepEqual(
    [...four.ids],
    rows.flatMap(({ ids }) => [...ids]),
  );
  assert.deepEqual(
    [...four.labels],
    rows.flatMap(({ labels }) => [...labels]),
  );
});

test("a text shorter than the context is one block", () => {
  const batches = batchesOf({ tokens: Uint16Array.of(7, 8, 9) }, { context: 5, cursor: start });
  const { ids, labels, numTargets } = batches.next(1);
  assert.deepEqual([[...ids], [...labels], numTargets], [[7, 8, 9, 0, 0], [8, 9, -1, -1, -1], 2]);
});

test("prompts are no targets, the token between texts is one, and blocks of prompts alone are left out", () => {
  const texts = [
    { tokens: Uint16Array.of(1, 2, 3), isTarget: Uint8Array.of(0, 0, 1) },
    { tokens: Uint16Array.of(4, 5, 6, 7, 8), isTarget: Uint8Array.of(0, 0, 0, 0, 1) },
  ];
  const { stream } = trainingSet(texts, {
    packing: "stream",
    context: 2,
    endOfText: 50,
    prefix: [],
  });
  assert.deepEqual([...stream.tokens], [1, 2, 3, 50, 4, 5, 6, 7, 8]);
  assert.deepEqual([...stream.isTarget!], [0, 0, 1, 1, 0, 0, 0, 0, 1]);
  const batches = batchesOf(stream, { context: 2, cursor: start });
  assert.equal(batches.numBlocks, 3); // of four: that of 5 and 6 has nothing to learn
  const rows = Array.from({ length: 3 }, () => batches.next(1));
  const found = rows.map(({ ids, labels, numTargets }) => [...ids, ...labels, numTargets]);
  assert.deepEqual(
    found.sort((a, b) => a[0]! - b[0]!),
    [
      [1, 2, -1, 3, 1],
      [3, 50, 50, -1, 1],
      [6, 7, -1, 8, 1],
    ],
  );
});

const lengthsOf = fc.array(fc.integer({ min: 1, max: 30 }), { minLength: 1, maxLength: 12 });
/** Texts whose tokens all differ; the first tokens of each are no targets. */
const textsOf = (lengths: readonly number[], prompts = 0): TokenizedText[] =>
  lengths.map((length, text) => ({
    tokens: Uint32Array.from({ length }, (_, i) => 100 * (text + 1) + i),
    ...(prompts > 0 && { isTarget: Uint8Array.from({ length }, (_, i) => +(i >= prompts)) }),
  }));

test("documents: each token but a text's first is predicted once an epoch, from its own text and place alone", () => {
  fc.assert(
    fc.property(lengthsOf, fc.integer({ min: 2, max: 9 }), fc.nat(9), (lengths, context, seed) => {
      const texts = textsOf(lengths);
      const how = { packing: "documents", context, endOfText: 7, prefix: [] } as const;
      const set = trainingSet(texts, how);
      fc.pre(set.windows.length > 0);
      const batches = trainingBatches(set, { seed, epoch: 0, index: 0 });
      const seen: number[] = [];
      let padding = 0;
      for (let row = 0; row < set.facts.rows; row++) {
        const { ids, labels, positions, numTargets } = batches.next(1);
        assert.equal(numTargets, labels.filter((label) => label >= 0).length);
        for (const [at, label] of labels.entries()) {
          if (label < 0) padding++;
          else {
            const [text, place] = [Math.floor(ids[at]! / 100) - 1, ids[at]! % 100];
            assert.equal(positions![at]!, place % context);
            const isEnd = place === lengths[text]! - 1;
            assert.equal(label, isEnd ? 7 : ids[at]! + 1);
            seen.push(ids[at]!);
          }
        }
      }
      assert.deepEqual(
        seen.sort((a, b) => a - b),
        texts.flatMap(({ tokens }) => [...tokens]),
      );
      assert.equal(set.facts.padding, padding);
      assert.equal(set.facts.leftOut, 0);
      assert.equal(batches.cursor().epoch, 0);
      batches.next(1);
      assert.equal(batches.cursor().epoch, 1);
    }),
  );
});

test("documents: rows are about as few as can be, other ones in each epoch, and follow from the cursor", () => {
  const random = createRandom(1);
  const lengths = Array.from({ length: 300 }, () => 2 + Math.floor(random.uniform() * 30));
  const set = trainingSet(textsOf(lengths), {
    packing: "documents",
    context: 64,
    endOfText: undefined,
    prefix: [],
  });
  const least = lengths.reduce((sum, length) => sum + length - 1, 0) / 64;
  assert.ok(set.facts.rows <= Math.ceil(least) + 1, `${set.facts.rows} rows, at least ${least}`);
  const whole = trainingBatches(set, start);
  const epoch = () => Array.from({ length: set.facts.rows }, () => whole.next(1).ids.join());
  const [first, cursor, second] = [epoch(), whole.cursor(), epoch()];
  assert.notDeepEqual(new Set(first), new Set(second));
  const resumed = trainingBatches(set, { ...cursor, epoch: 1, index: 2 });
  assert.equal(resumed.next(1).ids.join(), second[2]);
  assert.notEqual(
    trainingBatches(set, { ...start, seed: 6 })
      .next(1)
      .ids.join(),
    first[0],
  );
});

test("an end is put behind a document, but where it has one or ends with what is not learnt", () => {
  const texts: TokenizedText[] = [
    { tokens: Uint16Array.of(1, 2), isTarget: Uint8Array.of(0, 1) },
    { tokens: Uint16Array.of(3, 9), isTarget: Uint8Array.of(0, 1) },
    { tokens: Uint16Array.of(4, 5, 6), isTarget: Uint8Array.of(0, 1, 0) },
    { tokens: Uint16Array.of(7, 8), isTarget: Uint8Array.of(0, 0) },
  ];
  // Also where each text begins with the token.
  for (const prefix of [[], [9]]) {
    const set = trainingSet(texts, { packing: "auto", context: 8, endOfText: 9, prefix });
    assert.equal(set.facts.packing, "documents");
    assert.deepEqual([...set.stream.tokens], [1, 2, 9, 3, 9, 4, 5, 6, 7, 8]);
    assert.deepEqual([...set.stream.isTarget!], [0, 1, 1, 0, 1, 0, 1, 0, 0, 0]);
    assert.deepEqual(set.facts.leftOut, 1);
    const { ids, labels, positions } = trainingBatches(set, start).next(1);
    assert.deepEqual([...ids], [1, 2, 4, 5, 3, 9, 0, 0]);
    assert.deepEqual([...labels], [2, 9, 5, -1, 9, -1, -1, -1]);
    assert.deepEqual([...positions!], [0, 1, 0, 1, 0, 1, 0, 0]);
  }
});

test("rows: a text is padded, or cut where it is too long; a plan says how much and which", () => {
  const lengths = [3, 12, 5, 6, 20];
  const how = { context: 5, endOfText: undefined, prefix: [] } as const;
  const rows = trainingSet(textsOf(lengths), { ...how, packing: "rows" });
  const longer = {
    texts: 2,
    first: [
      { text: 2, tokens: 12 },
      { text: 5, tokens: 20 },
    ],
  };
  const facts = { texts: 5, leftOut: 0, longer };
  // In inputs: 2, 11 in 3 rows, 4, 5, 19 in 4.
  const split = { texts: 2, tokens: 32 };
  assert.deepEqual(rows.facts, { ...facts, packing: "rows", rows: 10, padding: 9, split });
  const { ids, positions } = trainingBatches(rows, start).next(10);
  assert.equal(positions, undefined);
  for (let row = 0; row < 10; row++) {
    const inRow = ids.subarray(5 * row, 5 * row + 5).filter((id) => id > 0);
    assert.equal(new Set(inRow.map((id) => Math.floor(id / 100))).size, 1);
  }
  const documents = trainingSet(textsOf(lengths), { ...how, packing: "documents" });
  assert.deepEqual(documents.facts, { ...facts, packing: "documents", rows: 9, padding: 4, split });
  const stream = trainingSet(textsOf(lengths), { ...how, context: 6, packing: "auto" });
  // 45 inputs in 8 blocks; only the first text lies in one.
  const cut = { texts: 4, tokens: 43 };
  assert.deepEqual(stream.facts, { ...facts, packing: "stream", rows: 8, padding: 3, split: cut });
  const prompts = trainingSet(textsOf(lengths, 5), { ...how, packing: "rows" });
  assert.equal(prompts.facts.leftOut, 2 + 4);
});
