// The plain product that a machine's rate is measured by: a chain of products stays in the range of normal numbers.

import assert from "node:assert/strict";
import { test } from "node:test";
import { squareOf } from "../../bench/tasks.ts";

const LEAST_NORMAL = 2 ** -126;

test("sixteen products of the measured matrix keep its scale", () => {
  const size = 128;
  const matrix = squareOf(size);
  const rms = (x: Float32Array) => Math.sqrt(x.reduce((sum, v) => sum + v * v, 0) / x.length);
  let y = matrix;
  for (let product = 0; product < 16; product++) {
    y = multiply(y, matrix, size);
    assert.ok(y.every((v) => Math.abs(v) >= LEAST_NORMAL));
    const growth = rms(y) / rms(matrix);
    assert.ok(growth > 0.1 && growth < 10, `${growth} times after ${product + 1} products`);
  }
});

function multiply(a: Float32Array, b: Float32Array, size: number): Float32Array {
  return Float32Array.from({ length: size * size }, (_, at) => {
    const [i, j] = [Math.floor(at / size), at % size];
    let sum = 0;
    for (let k = 0; k < size; k++) sum += a[i * size + k]! * b[k * size + j]!;
    return sum;
  });
}
