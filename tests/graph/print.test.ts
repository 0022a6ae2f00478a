// Graphs as text.

import assert from "node:assert/strict";
import { test } from "node:test";
import * as g from "../../src/graph/build.ts";
import { printGraph } from "../../src/graph/print.ts";

test("one line per node, inputs before users, then the outputs", () => {
  const x = g.input("x", [2, 3], "F32");
  const product = g.matMul(x, x, { transposeB: true });
  const y = g.gelu(g.add(product, g.constant([1, 2, 3, 4, 5, 6], [6, 1, 1])), "tanh");
  assert.equal(
    printGraph({ y, product }),
    `%0 = Input() {"name":"x"} : F32[2, 3]
%1 = MatMul(%0, %0) {"transposeA":false,"transposeB":true,"alpha":1} : F32[2, 2]
%2 = Constant() {1, 2, 3, 4, ..} : F32[6, 1, 1]
%3 = Add(%1, %2) : F32[6, 2, 2]
%4 = Gelu(%3) {"approximate":"tanh"} : F32[6, 2, 2]
y = %4
product = %1`,
  );
});

test("integers, scalars and named dimensions", () => {
  const ids = g.input("ids", ["batch", "sequence"], "I64");
  const table = g.parameter("table", [5, 2], "F16");
  const y = g.add(g.gather(table, ids), g.cast(g.scalar(0.5), "F16"));
  const last = g.integers([7, -1], [2]);
  assert.equal(
    printGraph({ y, last }),
    `%0 = Parameter() {"name":"table"} : F16[5, 2]
%1 = Input() {"name":"ids"} : I64[batch, sequence]
%2 = Gather(%0, %1) : F16[batch, sequence, 2]
%3 = Constant() {0.5} : F32[]
%4 = Cast(%3) {"to":"F16"} : F16[]
%5 = Add(%2, %4) : F16[batch, sequence, 2]
%6 = Constant() {7, -1} : I64[2]
y = %5
last = %6`,
  );
});
