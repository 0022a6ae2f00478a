// Activation recomputation: the same gradients, and nothing of a block's forward pass left for the backward pass.

import assert from "node:assert/strict";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { boundWeights } from "../../src/model/graph.ts";
import { openModel } from "../../src/model/open.ts";
import type { OpenedModel } from "../../src/model/opened.ts";
import { type Engine, openEngine } from "../../src/engines/index.ts";
import { verify } from "../../src/graph/passes.ts";
import type { OpType } from "../../src/graph/ops.ts";
import { isOp, type Outputs, topologicalOrder } from "../../src/graph/tensor.ts";
import { buildTrainingGraph } from "../../src/train/step.ts";
import { allClose } from "../helpers.ts";

const fixtures = new URL("../fixtures/", import.meta.url).pathname;
const window = { batchSize: 2, context: 12 };

let engine: Engine;
before(async () => (engine = await openEngine("cpu", { threads: 1 })));
after(() => engine.dispose());

async function run(model: OpenedModel, outputs: Outputs) {
  const program = await engine.compile(outputs, boundWeights(model));
  const size = window.batchSize * window.context;
  const results = await program.run({
    ...Object.fromEntries(model.temperatures!.values),
    ids: BigInt64Array.from({ length: size }, (_, i) => BigInt((7 * i) % 23)),
    labels: BigInt64Array.from({ length: size }, (_, i) => BigInt((7 * i + 7) % 23)),
    weights: new Float32Array(size).fill(1),
  });
  await program.dispose();
  return results;
}

for (const variant of ["gpt2", "llama", "gpt_neox", "phi3", "olmo2", "gemma2"])
  test(`${variant}: recomputing changes no gradient`, async () => {
    const adapter = join(fixtures, variant, "ssa", "full");
    const model = await openModel(join(fixtures, variant), { adapter });
    const names = [...model.temperatures!.values.keys()];
    const graphOf = (recompute: "nothing" | "cheap" | "blocks") =>
      buildTrainingGraph(model, window, names, { recompute });
    const count = (outputs: Outputs, op: OpType) =>
      topologicalOrder(Object.values(outputs)).filter((tensor) => isOp(tensor, op)).length;
    const held = graphOf("nothing");
    const expected = await run(model, held);
    for (const recompute of ["cheap", "blocks"] as const) {
      const graph = graphOf(recompute);
      verify(graph);
      const layers = model.model.config.numLayers;
      assert.equal(count(graph, "Softmax") - count(held, "Softmax"), layers);
      for (const [name, values] of Object.entries(await run(model, graph))) {
        const largest = expected[name]!.reduce((max, value) => Math.max(max, Math.abs(value)), 0);
        allClose(values, expected[name]!, { atol: 1e-5 * largest });
      }
    }
  });
