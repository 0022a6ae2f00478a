// The shape and dtype rule of every op: what it gives, and what it refuses.

import assert from "node:assert/strict";
import { test } from "node:test";
import type { Dtype } from "../../src/core/dtype.ts";
import { formatShape, type Shape } from "../../src/core/shape.ts";
import * as g from "../../src/graph/build.ts";
import { node, type Tensor } from "../../src/graph/tensor.ts";

const f = (...shape: Shape) => g.input("f", shape, "F32");
const h = (...shape: Shape) => g.input("h", shape, "F16");
const i = (...shape: Shape) => g.input("i", shape, "I64");
const flag = (...shape: Shape) => g.lessOrEqual(f(...shape), g.scalar(0));

function gives(tensor: Tensor, shape: Shape, dtype: Dtype = "F32") {
  assert.equal(`${tensor.dtype}${formatShape(tensor.shape)}`, `${dtype}${formatShape(shape)}`);
}

test("shapes and dtypes that follow", () => {
  gives(g.add(f(2, 1), f(3)), [2, 3]);
  gives(g.add(h(2, 1), h(3)), [2, 3], "F16");
  gives(g.add(f("batch", 1), f("batch", 3)), ["batch", 3]);
  gives(g.lessOrEqual(i(3, 1), i(3)), [3, 3], "BOOL");
  gives(g.and(flag(2, 1), flag(3)), [2, 3], "BOOL");
  gives(g.where(flag(4, 1, 1), f(2, 1), f(3)), [4, 2, 3]);
  gives(g.cast(f(2), "BF16"), [2], "BF16");
  gives(g.matMul(f(2, 1, 4, 5), f(3, 5, 6)), [2, 3, 4, 6]);
  gives(g.matMul(f(5, 4), f(6, 5), { transposeA: true, transposeB: true }), [4, 6]);
  gives(node("MatMul", [f(4, 5), f(5, 6), f(6)], g.matMul(f(4, 5), f(5, 6)).attributes), [4, 6]);
  gives(g.matMul(f("batch", 4, 5), f(5, 6)), ["batch", 4, 6]);
  gives(g.reduceSum(f(2, 3, 4), [0, -1]), [1, 3, 1]);
  gives(g.logSumExp(f(2, 3)), [2, 1]);
  gives(node("LayerNormMean", [f(2, 3), f(3), f(3)], { epsilon: 1 }), [2, 1]);
  gives(g.rmsNorm(h(2, 3), h(3), 1), [2, 3], "F16");
  gives(g.rotary(f(1, 2, 3, 6), f(3, 2), f(3, 2)), [1, 2, 3, 6]);
  gives(g.reshape(i(2, 3), [6]), [6], "I64");
  gives(g.transpose(f(2, 3, 4), [2, 0, 1]), [4, 2, 3]);
  gives(g.expand(f(3, 1), [2, 3, 4]), [2, 3, 4]);
  gives(g.slice(f(2, 5), -1, 1, 3), [2, 2]);
  gives(g.pad(f(2, 5), 1, 1, 3), [2, 9]);
  gives(g.pad(f("past", 5), 0, 0, 1), ["past + 1", 5]);
  gives(g.concat([f(2, 1), f(2, 3), f(2, 2)], -1), [2, 6]);
  gives(g.concat([f("past", 4), f("sequence", 4)], 0), ["past + sequence", 4]);
  gives(g.gather(f(9, 4), i(2, 3)), [2, 3, 4]);
  gives(g.scatterAdd(i(2, 3), f(2, 3, 4), 9), [9, 4]);
  gives(g.cumSum(i(2, 3)), [2, 3], "I64");
});

test("constructors that add no node", () => {
  const x = f(2, 3);
  for (const same of [
    g.cast(x, "F32"),
    g.slice(x, 1, 0, 3),
    g.slice(x, -1, 0, 3),
    g.pad(x, 1, 0, 0),
    g.concat([x], 0),
    g.reduceSum(x, []),
  ])
    assert.equal(same, x);
});

const refused: readonly (readonly [string, () => Tensor, RegExp])[] = [
  ["operands that do not broadcast", () => g.add(f(2, 3), f(2)), /\[2, 3\] with \[2\]/],
  ["two named dimensions", () => g.add(f("batch"), f("sequence")), /\[batch\] with \[sequence\]/],
  ["a named dimension with a number", () => g.add(f("batch"), f(2)), /\[batch\] with \[2\]/],
  ["mixed dtypes", () => g.add(f(2), h(2)), /F32 with F16/],
  ["a missing operand", () => node("Add", [f(2)], {}), /takes 2 inputs, got 1/],
  ["functions of integers", () => g.exp(i(2)), /I64 where a float is needed/],
  ["sums of integers", () => g.reduceSum(i(2), [0]), /I64 where a float is needed/],
  ["logic of numbers", () => g.and(f(2), f(2)), /F32 where BOOL is needed/],
  ["a number as condition", () => g.where(f(2), f(2), f(2)), /F32 as a condition/],
  ["unequal inner dimensions", () => g.matMul(f(2, 3), f(4, 2)), /inner dimensions 3 and 4/],
  [
    "unequal inner dimensions, transposed",
    () => g.matMul(f(2, 3), f(3, 2), { transposeB: true }),
    /inner dimensions 3 and 2/,
  ],
  ["batches that differ", () => g.matMul(f(2, 3, 3), f(4, 3, 3)), /\[2\] with \[4\]/],
  ["a vector as matrix", () => g.matMul(f(3), f(3, 2)), /a matrix has two axes/],
  ["a product of integers", () => g.matMul(i(3, 3), i(3, 3)), /I64 where a float/],
  ["a product of mixed dtypes", () => g.matMul(f(3, 3), h(3, 3)), /F32 with F16/],
  [
    "a reduced axis that is not there",
    () => node("ReduceSum", [f(2)], { axes: [1] }),
    /axis 1 of rank 1/,
  ],
  ["a norm's weight of another width", () => g.rmsNorm(f(2, 3), f(2), 1), /weight \[2\]/],
  ["cos and sin that differ", () => g.rotary(f(3, 4), f(3, 2), f(3, 1)), /differ in shape/],
  ["a rotation wider than a head", () => g.rotary(f(3, 4), f(3, 3), f(3, 3)), /rotates 2 · 3 of 4/],
  ["another number of elements", () => g.reshape(f(2, 3), [5]), /\[2, 3\] to \[5\]/],
  ["a permutation with a gap", () => g.transpose(f(2, 3), [0, 2]), /permutation 0 2/],
  ["an expansion that shrinks", () => g.expand(f(2, 3), [1, 3]), /to \[1, 3\]/],
  ["a slice beyond the end", () => g.slice(f(2, 3), 1, 1, 4), /1\.\.4 of 3/],
  ["an empty slice", () => g.slice(f(2, 3), 1, 2, 2), /2\.\.2 of 3/],
  ["negative padding", () => g.pad(f(2), 0, -1, 2), /negative padding/],
  ["nothing to join", () => node("Concat", [], { axis: 0 }), /takes one or more inputs, got 0/],
  ["parts of mixed dtypes", () => g.concat([f(2), h(2)], 0), /F16 with F32/],
  ["parts that do not fit", () => g.concat([f(2, 3), f(2, 4)], 0), /\[2, 4\] beside the others/],
  ["parts of another rank", () => g.concat([f(2, 3), f(2)], 0), /\[2\] beside the others/],
  ["floats as indices", () => g.gather(f(2, 3), f(2)), /F32 indices/],
  ["floats as rows", () => g.scatterAdd(f(2), f(2, 3), 4), /F32 indices/],
  ["another number of updates", () => g.scatterAdd(i(2), f(3, 3), 4), /updates per index/],
  ["values that do not fill a shape", () => g.constant([1, 2], [3]), /2 values/],
];

for (const [what, build, message] of refused)
  test(`refuses ${what}`, () => {
    assert.throws(build, (error: Error) => {
      assert.match(error.message, /^internal: \w+\(/); // names the op and its operands
      assert.match(error.message, message);
      return true;
    });
  });
