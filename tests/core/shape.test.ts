// Shape arithmetic against NumPy's rules.

import assert from "node:assert/strict";
import { test } from "node:test";
import {
  broadcastShapes,
  fixedShape,
  formatShape,
  normalizeAxis,
  sameShape,
  sizeOf,
} from "../../src/core/shape.ts";

test("broadcasting aligns the last dimensions", () => {
  assert.deepEqual(broadcastShapes([8, 1, 6, 1], [7, 1, 5]), [8, 7, 6, 5]);
  assert.deepEqual(broadcastShapes([], [2, 3]), [2, 3]);
  assert.deepEqual(broadcastShapes([0], [1]), [0]);
  assert.deepEqual(broadcastShapes(["batch", 1], [4]), ["batch", 4]);
  assert.throws(() => broadcastShapes([2], [3]), /internal: \[2\] with \[3\]/);
  assert.throws(() => broadcastShapes(["batch"], [3]), /internal/);
});

test("sizes and axes", () => {
  assert.equal(sizeOf([2, 3, 4]), 24);
  assert.equal(sizeOf([]), 1);
  assert.equal(sizeOf([3, 0]), 0);
  assert.throws(() => fixedShape([1, "batch"]), /internal: \[1, batch\] has no fixed size/);
  assert.equal(normalizeAxis(-1, 3), 2);
  assert.throws(() => normalizeAxis(3, 3), /internal: axis 3 of rank 3/);
  assert.equal(sameShape([1, "t"], [1, "t"]), true);
  assert.equal(sameShape([1], [1, 1]), false);
  assert.equal(formatShape(["batch", 4]), "[batch, 4]");
});
