// Every op's gradient against differences of its own values, and every claim that there is none.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { type Engine, openEngine } from "../../src/engines/index.ts";
import { gradients } from "../../src/graph/autodiff.ts";
import { verify } from "../../src/graph/passes.ts";
import { type Tensor, topologicalOrder } from "../../src/graph/tensor.ts";
import { vjps } from "../../src/graph/vjps.ts";
import { type CaseGraph, caseGraph, gradientName, inputName } from "./case-graph.ts";
import { type OpCase, opCases } from "./op-cases.ts";

let engine: Engine;
before(async () => (engine = await openEngine("cpu", { threads: 1 })));
after(() => engine.dispose());

/** A power of two, so that x ± h is exact; truncation is of the order of h⁴ and rounding of 1e-7 / h. */
const h = 1 / 32;

for (const [op, { gradient, cases }] of Object.entries(opCases))
  for (const example of cases)
    test(`${op}, ${example.name}: ${gradient === "none" ? "no gradient" : "gradient equals differences"}`, async () => {
      const graph = caseGraph(example);
      verify(graph.outputs);
      const uses = topologicalOrder([graph.value]).filter((tensor) => tensor.op === op);
      assert.ok(uses.length > 0, `the example has no ${op}`);
      if (gradient === "none") assert.ok(uses.every(hasNoRule));
      graph.inputs.forEach((x, i) => {
        if (!example.operands[i]!.hasGradient)
          assert.throws(() => gradients(graph.total, [x]), /has no gradient for input/);
      });
      await compareWithDifferences(example, graph);
    });

function hasNoRule(y: Tensor): boolean {
  const rule = vjps[y.op] as (
    ...operands: [Tensor, Tensor, readonly Tensor[], unknown]
  ) => readonly (Tensor | null)[];
  return rule(y, y, y.inputs, y.attributes).every((grad) => grad === null);
}

async function compareWithDifferences(
  { operands, parameters = new Map(), tolerance = 1e-4 }: OpCase,
  { outputs, cotangent, feeds }: CaseGraph,
) {
  const program = await engine.compile(outputs, parameters);
  const results = await program.run(feeds);
  const analytic = Object.fromEntries(
    Object.entries(results).map(([name, values]) => [name, values.slice()]),
  );
  const totalAt = async (name: string, values: Float32Array) => {
    const { value } = await program.run({ ...feeds, [name]: values });
    return value!.reduce((sum, v, i) => sum + v * cotangent[i]!, 0);
  };
  for (const [i, { values, hasGradient }] of operands.entries()) {
    if (!hasGradient || !(values instanceof Float32Array)) continue;
    for (let at = 0; at < values.length; at++) {
      const moved = async (by: number) => totalAt(inputName(i), values.with(at, values[at]! + by));
      const near = (await moved(h)) - (await moved(-h));
      const far = (await moved(2 * h)) - (await moved(-2 * h));
      const difference = (8 * near - far) / (12 * h);
      const actual = analytic[gradientName(i)]![at]!;
      const limit = tolerance * Math.max(1, Math.abs(difference));
      assert.ok(
        Math.abs(actual - difference) <= limit,
        `operand ${i}, element ${at}: ${actual}, differences say ${difference}`,
      );
    }
  }
  await program.dispose();
}
