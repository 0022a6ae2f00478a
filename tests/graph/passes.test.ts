// Passes over graphs: what is merged and dropped, that values stay the same to the bit, and that broken nodes are found.

import assert from "node:assert/strict";
import { test } from "node:test";
import { createRandom } from "../../src/core/random.ts";
import { sizeOf } from "../../src/core/shape.ts";
import { openEngine } from "../../src/engines/index.ts";
import { gradients } from "../../src/graph/autodiff.ts";
import * as g from "../../src/graph/build.ts";
import { simplify, verify } from "../../src/graph/passes.ts";
import { node, type Outputs, type Tensor, topologicalOrder } from "../../src/graph/tensor.ts";
import { attention } from "../../src/nn/attention.ts";
import { fixedPositions } from "../../src/nn/positions.ts";

const x = g.input("x", [2, 3], "F32");
const numNodes = (outputs: Outputs) => topologicalOrder(Object.values(outputs)).length;
const described = ({ op, attributes }: Tensor) => `${op} ${JSON.stringify(attributes)}`;
const simplified = (tensor: Tensor) => simplify({ y: tensor })["y"]!;

test("equal subexpressions are computed once", () => {
  const y = simplify({ a: g.add(g.exp(x), g.exp(x)), b: g.exp(x) });
  assert.equal(y["a"]!.inputs[0], y["a"]!.inputs[1]);
  assert.equal(y["b"], y["a"]!.inputs[0]);
  assert.equal(numNodes(y), 3);
});

test("nodes that differ in an attribute or in the order of operands stay apart", () => {
  const w = g.input("w", [2, 3], "F32");
  const pairs = [
    [g.sub(x, w), g.sub(w, x)],
    [g.reduceSum(x, [0]), g.reduceSum(g.add(x, x), [0])],
    [g.slice(x, 1, 0, 2), g.slice(x, 1, 1, 3)],
    [g.gelu(x, "tanh"), g.gelu(x, "none")],
    [g.scale(x, 0), g.scale(x, -0)],
    [g.scale(x, 2), g.mul(x, g.constant([2], [1]))],
    [g.scale(x, NaN), g.scale(x, Infinity)],
  ] as const;
  for (const [a, b] of pairs) {
    const y = simplify({ a, b });
    assert.notEqual(y["a"], y["b"], described(a));
  }
});

test("small constants are one by value, tables only if they are the same array", () => {
  const small = () => g.constant([1, 2, 3], [3]);
  const values = new Float32Array(100);
  const table = (data: Float32Array) =>
    node("Constant", [], { data, shape: [100], dtype: "F32" }) as Tensor;
  const y = simplify({
    a: small(),
    b: small(),
    c: table(values),
    d: table(values),
    e: table(values.slice()),
  });
  assert.equal(y["a"], y["b"]);
  assert.equal(y["c"], y["d"]);
  assert.notEqual(y["c"], y["e"]);
});

test("identities vanish", () => {
  const one = g.expand(g.scalar(1), [2, 3]);
  for (const same of [
    g.reshape(x, [2, 3]),
    g.reshape(g.reshape(x, [6]), [2, 3]),
    g.expand(x, [2, 3]),
    g.transpose(x, [0, 1]),
    g.mul(x, one),
    g.mul(one, x),
    g.mul(g.scalar(1), x),
  ])
    assert.equal(simplified(same), x, described(same));
  const reshaped = simplified(g.reshape(g.reshape(g.reshape(x, [6]), [3, 2]), [1, 6]));
  assert.equal(reshaped.inputs[0], x);
});

test("what only looks like an identity stays", () => {
  for (const kept of [
    g.reshape(x, [3, 2]),
    g.expand(x, [4, 2, 3]),
    g.transpose(g.input("square", [3, 3], "F32"), [1, 0]),
    g.mul(x, g.expand(g.scalar(1), [4, 2, 3])),
    g.mul(x, g.scalar(-1)),
    g.add(x, g.scalar(0)), // -0 + 0 is 0
  ])
    assert.equal(simplified(kept).op, kept.op, described(kept));
});

test("reshapes to named dimensions are left alone", () => {
  const open = g.input("open", ["batch", 4], "F32");
  const shape = simplified(g.reshape(g.reshape(open, ["batch", 2, 2]), ["batch", 2, 2, 1])).shape;
  assert.deepEqual(shape, ["batch", 2, 2, 1]);
});

test("simplifying twice changes nothing more", () => {
  const once = simplify(attentionWithGradients());
  for (const [name, tensor] of Object.entries(simplify(once)))
    assert.ok(tensor === once[name], `${name} is another node: ${described(tensor)}`);
});

test("attention and its gradients: fewer nodes, and the same values to the bit", async () => {
  const outputs = attentionWithGradients();
  const smaller = simplify(outputs);
  verify(smaller);
  assert.ok(numNodes(smaller) < numNodes(outputs));

  const random = createRandom(3);
  const feeds = Object.fromEntries(
    Object.entries(shapes).map(([name, shape]) => [
      name,
      Float32Array.from({ length: sizeOf(shape) }, () => random.normal()),
    ]),
  );
  const engine = await openEngine("cpu", { threads: 1 });
  const runs = [outputs, smaller].map(async (graph) => {
    const program = await engine.compile(graph, new Map());
    return program.run(feeds);
  });
  const [expected, actual] = await Promise.all(runs);
  assert.deepEqual(actual, expected);
  await engine.dispose();
});

test("a mislabelled node is found", () => {
  const product = g.matMul(x, x, { transposeB: true });
  verify({ product });
  for (const wrong of [
    { ...product, shape: [2, 3] },
    { ...product, dtype: "F16" as const },
  ])
    assert.throws(() => verify({ y: g.exp(wrong) }), /^Error: internal: MatMul is mislabelled/);
});

test("two leaves of one name are found", () => {
  const other = g.input("x", [3], "F32");
  assert.throws(() => verify({ y: g.add(x, other) }), /two leaves named x/);
});

const shapes = { query: [2, 4, 150, 4], key: [2, 2, 150, 4], value: [2, 2, 150, 4] };

/** Grouped queries and two blocks of rows, so that masks, slices, reshapes and their gradients occur. */
function attentionWithGradients(): Outputs {
  const inputs = Object.entries(shapes).map(([name, shape]) => g.input(name, shape, "F32"));
  const [query, key, value] = inputs as [Tensor, Tensor, Tensor];
  const place = { hooks: {}, layer: 0, input: query };
  const options = { scale: 0.5, positions: fixedPositions(150), ...place };
  const y = g.softmax(attention({ query, key, value }, options));
  const score = g.reduceSum(g.mul(y, g.tanh(y)), [0, 1, 2]);
  const [dQuery, dKey, dValue] = gradients(score, inputs) as [Tensor, Tensor, Tensor];
  return { score, dQuery, dKey, dValue };
}
