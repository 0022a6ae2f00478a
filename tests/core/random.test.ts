import assert from "node:assert/strict";
import { test } from "node:test";
import { createRandom, xoshiro } from "../../src/core/random.ts";

test("words are those of xoshiro128** from the state 1, 2, 3, 4", () => {
  // Reference outputs, two per number: 11520, 0, 5927040, 70819200, 2031721883, 1637235492.
  const random = xoshiro([1, 2, 3, 4]);
  const expected = [
    [11520, 0],
    [5927040, 70819200],
    [2031721883, 1637235492],
  ] as const;
  for (const [high, low] of expected) {
    assert.equal(random.uniform(), ((high >>> 5) * 2 ** 26 + (low >>> 6)) / 2 ** 53);
  }
});

test("seeds and streams differ, also above 32 bits", () => {
  const first = [
    createRandom(0),
    createRandom(1),
    createRandom(0, 1),
    createRandom(2 ** 32),
    createRandom(1, 0),
    createRandom(0, 1, 0),
    createRandom(0, 1, 1),
  ].map((random) => random.uniform());
  assert.equal(new Set(first).size, 6);
  assert.equal(first[1], first[4]);
});

test("uniform and normal have the right first two moments", () => {
  const random = createRandom(3);
  const n = 100_000;
  let [sum, normalSum, normalSquares] = [0, 0, 0];
  for (let i = 0; i < n; i++) {
    const u = random.uniform();
    assert.ok(u >= 0 && u < 1);
    sum += u;
    const z = random.normal();
    normalSum += z;
    normalSquares += z * z;
  }
  // Five standard errors: 5·√(1/12)/√n, 5/√n, 5·√2/√n.
  assert.ok(Math.abs(sum / n - 0.5) < 0.0046);
  assert.ok(Math.abs(normalSum / n) < 0.0159);
  assert.ok(Math.abs(normalSquares / n - 1) < 0.0224);
});

test("a shuffle is a permutation, and all orders of three are about as frequent", () => {
  const random = createRandom(11);
  const counts = new Map<string, number>();
  for (let i = 0; i < 6000; i++) {
    const items = Int32Array.of(0, 1, 2);
    random.shuffle(items);
    counts.set(items.join(""), (counts.get(items.join("")) ?? 0) + 1);
  }
  assert.equal(counts.size, 6);
  for (const count of counts.values()) assert.ok(Math.abs(count - 1000) < 150, `${count}`);
});
