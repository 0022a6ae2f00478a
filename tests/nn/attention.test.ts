// Causal attention against its plain formula, over windows that span several blocks of rows.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { createRandom } from "../../src/core/random.ts";
import { sizeOf } from "../../src/core/shape.ts";
import { type Engine, openEngine } from "../../src/engines/index.ts";
import * as g from "../../src/graph/build.ts";
import { type Tensor, topologicalOrder } from "../../src/graph/tensor.ts";
import { attention, type Projections, splitHeads } from "../../src/nn/attention.ts";
import { fixedPositions, givenPositions, MASKED, packedPositions } from "../../src/nn/positions.ts";
import { allClose } from "../helpers.ts";

let engine: Engine;
before(async () => (engine = await openEngine("cpu", { threads: 1 })));
after(() => engine.dispose());

interface Sizes {
  readonly batch: number;
  readonly heads: number;
  readonly groups: number;
  readonly length: number;
  readonly headDim: number;
  /** Keys that a query sees; all by default. */
  readonly window?: number;
}

const scale = 0.4;
const without = { scale, hooks: {}, layer: 0, input: g.input("x", [1, 1, 1], "F32") };

function projectionInputs({ batch, heads, groups, length, headDim }: Sizes): Projections {
  return {
    query: g.input("query", [batch, heads, length, headDim], "F32"),
    key: g.input("key", [batch, groups, length, headDim], "F32"),
    value: g.input("value", [batch, groups, length, headDim], "F32"),
  };
}

function feedsOf(projections: Projections) {
  const random = createRandom(11);
  const fill = ({ shape }: Tensor) =>
    Float32Array.from({ length: sizeOf(shape) }, () => random.normal());
  const { query, key, value } = projections;
  return { query: fill(query), key: fill(key), value: fill(value) };
}

/** Σ_s softmax_s(scale q_t · k_s) v_s over t - window < s ≤ t, one number at a time; [B, T, N · H]. */
function formula(sizes: Sizes, { query, key, value }: ReturnType<typeof feedsOf>): Float32Array {
  const { batch, heads, groups, length, headDim, window = length } = sizes;
  const y = new Float32Array(batch * length * heads * headDim);
  for (let b = 0; b < batch; b++)
    for (let head = 0; head < heads; head++) {
      const group = Math.floor((head * groups) / heads);
      const queryAt = (t: number) => ((b * heads + head) * length + t) * headDim;
      const keyAt = (s: number) => ((b * groups + group) * length + s) * headDim;
      for (let t = 0; t < length; t++) {
        const first = Math.max(0, t - window + 1);
        const logits = Array.from({ length: t + 1 - first }, (_, i) => {
          const s = first + i;
          let dot = 0;
          for (let h = 0; h < headDim; h++) dot += query[queryAt(t) + h]! * key[keyAt(s) + h]!;
          return scale * dot;
        });
        const largest = Math.max(...logits);
        const weights = logits.map((logit) => Math.exp(logit - largest));
        const sum = weights.reduce((a, b) => a + b);
        for (let i = 0; i < headDim; i++) {
          const mixed = weights.reduce(
            (v, weight, s) => v + weight * value[keyAt(first + s) + i]!,
            0,
          );
          y[((b * length + t) * heads + head) * headDim + i] = mixed / sum;
        }
      }
    }
  return y;
}

const cases: readonly (readonly [string, Sizes])[] = [
  ["one block", { batch: 2, heads: 2, groups: 2, length: 20, headDim: 4 }],
  ["exactly a block", { batch: 1, heads: 1, groups: 1, length: 128, headDim: 4 }],
  ["three blocks, the last one short", { batch: 2, heads: 2, groups: 2, length: 300, headDim: 4 }],
  ["grouped queries, two blocks", { batch: 2, heads: 6, groups: 2, length: 150, headDim: 4 }],
  ["a window of one key", { batch: 1, heads: 1, groups: 1, length: 140, headDim: 4, window: 1 }],
  [
    "a window within blocks",
    { batch: 2, heads: 2, groups: 1, length: 300, headDim: 4, window: 50 },
  ],
  ["a window of a block", { batch: 1, heads: 1, groups: 1, length: 400, headDim: 4, window: 128 }],
  ["a window over blocks", { batch: 1, heads: 2, groups: 2, length: 400, headDim: 4, window: 190 }],
];

for (const [name, sizes] of cases)
  test(`${name}: equals the formula`, async () => {
    const projections = projectionInputs(sizes);
    const { batch, length, window = length } = sizes;
    const options = { ...without, window };
    const y = attention(projections, { ...options, positions: fixedPositions(length) });
    // The same by an explicit mask, as an exported model has it: one block, however long.
    const ids = g.integers(
      [...Array(batch * length).keys()].map((i) => i % length),
      [batch, length],
    );
    const mask = (size: number) => {
      const visible = (t: number, s: number) => s <= t && s > t - size;
      const values = Float32Array.from({ length: length * length }, (_, i) =>
        visible(Math.floor(i / length), i % length) ? 0 : MASKED,
      );
      return g.constant(values, [1, 1, length, length]);
    };
    const positions = givenPositions(ids, mask, length);
    const masked = attention(projections, { ...options, positions });

    const program = await engine.compile({ y, masked }, new Map());
    const feeds = feedsOf(projections);
    const results = await program.run(feeds);
    const expected = formula(sizes, feeds);
    allClose(results["y"]!, expected, { atol: 1e-6 });
    allClose(results["masked"]!, expected, { atol: 1e-6 });
    await program.dispose();
  });

for (const window of [300, 50])
  test(`texts side by side in a row equal the formula of each, under a window of ${window}`, async () => {
    const sizes = { batch: 2, heads: 2, groups: 1, length: 300, headDim: 4 };
    const { batch, heads, length, headDim } = sizes;
    // The first row holds three texts, the second one and padding.
    const begins = [
      [0, 130, 131],
      [0, ...Array.from({ length: 60 }, (_, i) => 240 + i)],
    ];
    const positions = begins.flatMap((all) =>
      Array.from({ length }, (_, at) => at - all.findLast((begin) => begin <= at)!),
    );
    const ids = g.input("positions", [batch, length], "I64");
    const projections = projectionInputs(sizes);
    const packed = packedPositions(ids);
    const y = attention(projections, { ...without, window, positions: packed });
    const program = await engine.compile({ y }, new Map());
    const feeds = feedsOf(projections);
    const results = await program.run({
      ...feeds,
      positions: BigInt64Array.from(positions, BigInt),
    });
    await program.dispose();
    for (const [row, all] of begins.entries())
      for (const [i, from] of all.entries()) {
        const to = all[i + 1] ?? length;
        const part = (x: Float32Array, heads: number) =>
          Float32Array.from({ length: heads * (to - from) * headDim }, (_, at) => {
            const [head, inHead] = [
              Math.floor(at / ((to - from) * headDim)),
              at % ((to - from) * headDim),
            ];
            return x[((row * heads + head) * length + from) * headDim + inHead]!;
          });
        const { query, key, value } = feeds as Record<string, Float32Array>;
        const alone = { query: part(query!, heads), key: part(key!, 1), value: part(value!, 1) };
        const expected = formula({ ...sizes, batch: 1, length: to - from, window }, alone);
        const width = heads * headDim;
        const first = (row * length + from) * width;
        allClose(results["y"]!.subarray(first, first + expected.length), expected, { atol: 1e-6 });
      }
  });

test("a window that hides nothing leaves no trace; a shorter one costs less", () => {
  const length = 1024;
  const projections = projectionInputs({ batch: 1, heads: 1, groups: 1, length, headDim: 4 });
  const nodes = (window?: number) => {
    const positions = fixedPositions(length);
    return { y: attention(projections, { ...without, positions, ...(window && { window }) }) };
  };
  const plain = nodes();
  assert.deepEqual(nodes(length), plain);
  assert.deepEqual(nodes(length + 1), plain);

  const weights = (window?: number) =>
    topologicalOrder(Object.values(nodes(window)))
      .filter(({ op }) => op === "Softmax")
      .reduce((sum, { shape }) => sum + sizeOf(shape), 0);
  // Eight blocks of 128 rows: of 128 to 1,024 keys; of 128, 227 and so on.
  assert.equal(weights(), 128 * 128 * 36);
  assert.equal(weights(100), 128 * (128 + 7 * 227));
});

test("hooks that are absent leave no trace; those that are there see the projections", () => {
  const sizes = { batch: 1, heads: 2, groups: 1, length: 8, headDim: 4 };
  const projections = projectionInputs(sizes);
  const options = { ...without, positions: fixedPositions(8) };
  const ops = (y: Tensor) => topologicalOrder([y]).map(({ op }) => op);
  const bare = ops(attention(projections, options));
  assert.ok(!bare.includes("Tanh") && !bare.includes("Sigmoid"));

  const seen: unknown[] = [];
  const hooked = attention(projections, {
    ...options,
    layer: 3,
    rotate: g.sigmoid,
    hooks: {
      scale: ({ query, key, value }, { layer, input }) => {
        seen.push(query, key, value, layer, input);
        return { query: g.tanh(query), key, value };
      },
      cache: (_, { key, value }) => ({ key: g.neg(key), value: g.neg(value) }),
    },
  });
  const { query, key, value } = projections;
  assert.deepEqual(seen, [query, key, value, 3, options.input]);
  const sigmoids = topologicalOrder([hooked]).filter(({ op }) => op === "Sigmoid");
  // Temperatures come before the rotation, and the cache keeps rotated keys.
  assert.deepEqual(
    sigmoids.map(({ inputs: [x] }) => x!.op),
    ["Tanh", "Input"],
  );
  const negated = topologicalOrder([hooked]).filter(({ op }) => op === "Neg");
  assert.deepEqual(negated.map(({ inputs: [x] }) => x!.op).sort(), ["Input", "Sigmoid"]);
});

test("splitting heads keeps each head's features together", async () => {
  const x = g.input("x", [1, 2, 6], "F32"); // two tokens, three heads of two
  const program = await engine.compile({ y: splitHeads(x, 3) }, new Map());
  const results = await program.run({ x: Float32Array.from({ length: 12 }, (_, i) => i) });
  assert.deepEqual([...results["y"]!], [0, 1, 6, 7, 2, 3, 8, 9, 4, 5, 10, 11]);
  await program.dispose();
});
