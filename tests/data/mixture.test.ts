// Several sources in one order of rows: shares, seeds, and going on from any cursor.
import assert from "node:assert/strict";
import { test } from "node:test";
import { mixedBatches, rowsFrom, sharesOf, shuffledRows } from "../../src/data/training.ts";
import { type Source, trainingSet } from "../../src/data/training.ts";

const context = 4;
const start = { seed: 3, epoch: 0, index: 0 };

/** A source whose tokens say where they are from: row r of source s begins with 1000 s + 4 r. */
function source(numRows: number, weight: number | null, s: number): Source {
  const tokens = Uint16Array.from({ length: context * numRows + 1 }, (_, i) => 1000 * s + i);
  const how = { packing: "stream", context, endOfText: 0, prefix: [] } as const;
  const training = trainingSet([{ tokens }], how);
  return { name: `source ${s}`, weight, numRows, training };
}

/** First tokens of so many rows. */
function rowsOf(sources: readonly Source[], count: number, cursor = start) {
  const batches = mixedBatches(sources, cursor);
  return Array.from({ length: count }, () => batches.next(1).ids[0]!);
}

const shareOf = (rows: readonly number[], s: number) =>
  rows.filter((row) => Math.floor(row / 1000) === s).length / rows.length;

test("an epoch has as many rows as all sources, each its share by weight, to the row", () => {
  const sources = [source(30, 3, 0), source(10, 1, 1), source(60, 1, 2)];
  assert.deepEqual(sharesOf(sources), [0.6, 0.2, 0.2]);
  const rows = rowsOf(sources, 300);
  for (let epoch = 0; epoch < 3; epoch++) {
    const part = rows.slice(100 * epoch, 100 * (epoch + 1));
    assert.deepEqual(
      [0, 1, 2].map((s) => shareOf(part, s)),
      [0.6, 0.2, 0.2],
    );
  }
  // Source 0 was read six times in three epochs, and each of its rows six times; source 2 once, and each row once.
  const counts = (s: number) => {
    const of = rows.filter((row) => Math.floor(row / 1000) === s);
    return new Set([...new Set(of)].map((row) => of.filter((other) => other === row).length));
  };
  assert.deepEqual([counts(0), counts(1), counts(2)], [new Set([6]), new Set([6]), new Set([1])]);
  // Mixed, not one behind the other.
  for (const s of [0, 1, 2]) assert.ok(shareOf(rows.slice(0, 50), s) > 0.05);
});

test("without weights every row of every source comes once in an epoch", () => {
  const sources = [source(7, null, 0), source(13, null, 1)];
  assert.deepEqual(sharesOf(sources), [7 / 20, 13 / 20]);
  const epochs = [0, 1].map((epoch) => rowsOf(sources, 20, { ...start, epoch }));
  for (const rows of epochs) assert.equal(new Set(rows).size, 20);
  assert.notDeepEqual(epochs[0], epochs[1]);
});

test("the remainders go to the largest; a source that would give nothing is refused", () => {
  const shares = sharesOf([source(5, 1, 0), source(3, 1, 1), source(2, 1, 2)]);
  assert.deepEqual(shares, [0.4, 0.3, 0.3]);
  assert.throws(() => sharesOf([source(5, 1000, 0), source(5, 1, 1)]), {
    name: "UserError",
    message: "source 1 would give none of the 10 sequences of an epoch",
  });
});

test("the same seed mixes the same, another another, and any cursor goes on as if not interrupted", () => {
  const sources = [source(9, 2, 0), source(5, 5, 1)];
  const whole = rowsOf(sources, 60);
  assert.deepEqual(rowsOf(sources, 60), whole);
  assert.notDeepEqual(rowsOf(sources, 60, { ...start, seed: 4 }), whole);
  const batches = mixedBatches(sources, start);
  for (let done = 0; done < 45; done += 3) {
    assert.deepEqual(rowsOf(sources, 15, batches.cursor()), whole.slice(done, done + 15));
    const { ids, labels, numTargets } = batches.next(3);
    assert.deepEqual(
      [0, 1, 2].map((row) => ids[row * context]),
      whole.slice(done, done + 3),
    );
    assert.equal(ids.length, 3 * context);
    assert.deepEqual(
      [...labels],
      [...ids].map((id) => id + 1),
    );
    assert.equal(numTargets, 3 * context);
  }
});

test("sources of one length are each in an order of their own, the first as if it were alone", () => {
  const sources = [source(12, null, 0), source(12, null, 1), source(12, null, 2)];
  const rows = rowsOf(sources, 36);
  const orders = [0, 1, 2].map((s) =>
    rows.filter((row) => Math.floor(row / 1000) === s).map((row) => row % 1000),
  );
  assert.deepEqual(orders[0], rowsOf([sources[0]!], 12));
  assert.equal(new Set(orders.map(String)).size, 3);
});

test("one source alone comes in its own order", () => {
  const one = source(12, null, 0);
  const own = rowsFrom(start, (epoch) => shuffledRows(one.training, start.seed, epoch));
  assert.deepEqual(
    rowsOf([one], 30),
    Array.from({ length: 30 }, () => own.next()[0]!.start),
  );
});
