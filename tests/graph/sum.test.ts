// Sums of padded tensors: joined instead of added where they abut or overlap, with the values of the plain sum.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { type Engine, openEngine } from "../../src/engines/index.ts";
import * as g from "../../src/graph/build.ts";
import { Sum } from "../../src/graph/autodiff.ts";
import { type Tensor, topologicalOrder } from "../../src/graph/tensor.ts";
import { allClose } from "../helpers.ts";

const LENGTH = 8;
const cases: Readonly<Record<string, { ranges: (readonly [number, number])[]; pads: number }>> = {
  "abutting parts are joined": {
    ranges: [
      [0, 3],
      [3, 4],
      [4, 8],
    ],
    pads: 0,
  },
  "parts with ends left over are joined and padded once": {
    ranges: [
      [2, 3],
      [3, 6],
    ],
    pads: 1,
  },
  "nested prefixes are added where they overlap": {
    ranges: [
      [0, 2],
      [0, 5],
      [0, 7],
    ],
    pads: 1,
  },
  "parts with a hole between them are added": {
    ranges: [
      [0, 2],
      [4, 8],
    ],
    pads: 2,
  },
  "one part stays as it is": { ranges: [[1, 4]], pads: 1 },
};

let engine: Engine;
before(async () => (engine = await openEngine("cpu", { threads: 1 })));
after(() => engine.dispose());

for (const [title, { ranges, pads }] of Object.entries(cases))
  test(title, async () => {
    const whole = g.input("whole", [2, LENGTH], "F32");
    const parts = ranges.map(([from, to], i) => g.input(`part${i}`, [2, to - from], "F32"));
    const padded = parts.map((part, i) => g.pad(part, 1, ranges[i]![0], LENGTH - ranges[i]![1]));
    const terms = [whole, ...padded];
    const y = new Sum(terms).total();
    assert.equal(topologicalOrder([y]).filter(({ op }) => op === "Pad").length, pads);

    const program = await engine.compile(
      { y, plain: terms.reduce<Tensor>(g.add, g.scalar(0)) },
      new Map(),
    );
    const feeds = [whole, ...parts].map((x, i) => {
      const values = Float32Array.from({ length: 2 * Number(x.shape[1]) }, (_, j) =>
        Math.sin(5 * i + j),
      );
      return [x.attributes.name, values] as const;
    });
    const results = await program.run(Object.fromEntries(feeds));
    allClose(results["y"]!, results["plain"]!, { atol: 1e-6 });
    await program.dispose();
  });
