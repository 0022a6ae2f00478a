// Every op's gradient against differences of its own values, and every claim that there is none.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { type Engine, openEngine } from "../../src/engines/index.ts";
import { gradients } from "../../src/graph/autodiff.ts";
import { verify } from "../../src/graph/passes.ts";
import { type Tensor, topologicalOrder } from "../../src/graph/tensor.ts";
import { vjps } from "../../src/graph/vjps.ts";
import { caseGraph } from "./case-graph.ts";
import { compareWithDifferences } from "./differences.ts";
import { opCases } from "./op-cases.ts";

let engine: Engine;
before(async () => (engine = await openEngine("cpu", { threads: 1 })));
after(() => engine.dispose());

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
      await compareWithDifferences(engine, example, graph);
    });

function hasNoRule(y: Tensor): boolean {
  const rule = vjps[y.op] as (
    ...operands: [Tensor, Tensor, readonly Tensor[], unknown]
  ) => readonly (Tensor | null)[];
  return rule(y, y, y.inputs, y.attributes).every((grad) => grad === null);
}
