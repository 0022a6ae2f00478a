import assert from "node:assert/strict";
import { test } from "node:test";
import { joinForTraining, trainingBatches } from "../../src/data/windows.ts";

const start = { seed: 5, epoch: 0, index: 0 };

test("texts are joined by the end-of-text token, but where a prefix says the same", () => {
  const texts = [Uint16Array.of(1, 2), Uint16Array.of(3), Uint16Array.of(4, 5)];
  const join = (endOfText: number | undefined, prefix: readonly number[]) => [
    ...joinForTraining(
      texts.map((tokens) => ({ tokens })),
      { vocabSize: 100, endOfText, prefix },
    ).tokens,
  ];
  assert.deepEqual(join(9, []), [1, 2, 9, 3, 9, 4, 5]);
  assert.deepEqual(join(9, [8]), [1, 2, 9, 3, 9, 4, 5]);
  assert.deepEqual(join(9, [9]), [1, 2, 3, 4, 5]);
  assert.deepEqual(join(undefined, []), [1, 2, 3, 4, 5]);
});

test("in an epoch every token but the first is a target once, after the token before it", () => {
  const stream = Uint16Array.from({ length: 24 }, (_, i) => 100 + i);
  const batches = trainingBatches({ tokens: stream }, { context: 5, cursor: start });
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
    const batches = trainingBatches({ tokens: stream }, { context: 5, cursor: { ...start, seed } });
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
  const whole = trainingBatches({ tokens: stream }, { context: 5, cursor: start });
  for (let batch = 0; batch < 9; batch++) {
    const cursor = whole.cursor();
    const resumed = trainingBatches({ tokens: stream }, { context: 5, cursor });
    const expected = whole.next(3);
    assert.deepEqual(resumed.next(3), expected);
    assert.deepEqual(resumed.cursor(), whole.cursor());
  }
  assert.equal(whole.cursor().epoch, 2);
});

test("one batch of four rows is four batches of one", () => {
  const stream = Uint16Array.from({ length: 52 }, (_, i) => i);
  const four = trainingBatches({ tokens: stream }, { context: 5, cursor: start }).next(4);
  const one = trainingBatches({ tokens: stream }, { context: 5, cursor: start });
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
  const batches = trainingBatches(
    { tokens: Uint16Array.of(7, 8, 9) },
    { context: 5, cursor: start },
  );
  const { ids, labels, numTargets } = batches.next(1);
  assert.deepEqual([[...ids], [...labels], numTargets], [[7, 8, 9, 0, 0], [8, 9, -1, -1, -1], 2]);
});

test("prompts are no targets, the token between texts is one, and blocks of prompts alone are left out", () => {
  const texts = [
    { tokens: Uint16Array.of(1, 2, 3), isTarget: Uint8Array.of(0, 0, 1) },
    { tokens: Uint16Array.of(4, 5, 6, 7, 8), isTarget: Uint8Array.of(0, 0, 0, 0, 1) },
  ];
  const stream = joinForTraining(texts, { vocabSize: 100, endOfText: 50, prefix: [] });
  assert.deepEqual([...stream.tokens], [1, 2, 3, 50, 4, 5, 6, 7, 8]);
  assert.deepEqual([...stream.isTarget!], [0, 0, 1, 1, 0, 0, 0, 0, 1]);
  const batches = trainingBatches(stream, { context: 2, cursor: start });
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
