// Graphs for devices on which every node is the launch of a kernel: how many nodes a step has there, and that it computes
// what the processor's own graph computes. The GPUs' lowerings are run by the processor's kernels.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { fileURLToPath } from "node:url";
import { GEOMETRIES, openConfig } from "../../bench/models.ts";
import { numNodes } from "../../bench/onnx-nodes.ts";
import type { Precision } from "../../src/core/dtype.ts";
import { createRandom } from "../../src/core/random.ts";
import { type Engine, openEngine, type Results } from "../../src/engines/index.ts";
import { targets, toOnnx } from "../../src/engines/onnx/onnx.ts";
import { onnxRuntimeEngine } from "../../src/engines/onnxruntime/engine.ts";
import { fewerLaunches } from "../../src/graph/launches.ts";
import { mapNodes, simplify, verify } from "../../src/graph/passes.ts";
import { isOp, type Outputs, topologicalOrder } from "../../src/graph/tensor.ts";
import { largeTiles } from "../../src/nn/tiling.ts";
import { boundWeights } from "../../src/model/graph.ts";
import { openModel } from "../../src/model/open.ts";
import { buildTrainingGraph } from "../../src/train/step.ts";
import { temporaryFolder } from "../helpers.ts";
import { modelCase, type ModelCase } from "./model-case.ts";

const gpus = ["cuda", "webgpu"] as const;
const variants = [
  ["gpt2", "default"],
  ["llama", "default"],
  ["gpt_neox", "default"],
  ["phi3", "full"],
  ["olmo2", "full"],
  ["gemma2", "full"],
] as const;

const CONTEXT = 12;

test("a step of GPT-2 small has at most 1,500 nodes on a GPU", async (t) => {
  const opened = await openConfig(await temporaryFolder(t), GEOMETRIES.gpt2, "F32");
  const names = [...opened.temperatures!.values.keys()];
  const step = buildTrainingGraph(opened, { batchSize: 1, context: 1024 }, names, {
    recompute: "nothing",
    tiling: largeTiles,
  });
  for (const gpu of gpus) {
    const weight = { location: "", offset: 0, byteLength: 0 };
    const count = numNodes(toOnnx(fewerLaunches(step, targets[gpu]), () => weight, targets[gpu]));
    t.diagnostic(`${gpu}: ${count}`);
    assert.ok(count <= 1500, `${gpu}: ${count}`);
    assert.ok(count > 1000, "what is counted are the model's nodes");
  }
});

let reference: Engine;
before(async () => (reference = await openEngine("cpu", { threads: 1 })));
after(() => reference.dispose());

for (const gpu of gpus)
  test(`${gpu}'s graph computes the processor's losses and gradients`, async (t) => {
    const engine = onnxRuntimeEngine({
      description: `${gpu}'s graph on the processor`,
      precisions: ["fp32"],
      target: targets[gpu],
      provider: { name: "cpu" },
      threads: 1,
    });
    t.after(() => engine.dispose());
    const largest = async (example: ModelCase) => {
      verify(fewerLaunches(example.outputs, targets[gpu]));
      const found = deviation(await run(reference, example), await run(engine, example));
      t.diagnostic(found.toExponential(1));
      return found;
    };
    for (const [variant, spec] of variants) {
      for (const [batchSize, recompute] of [
        [1, "nothing"],
        [3, "nothing"],
        [2, "cheap"],
        [2, "blocks"],
      ] as const)
        await t.test(`${variant}, ${batchSize} windows, recomputes ${recompute}`, async () =>
          assert.ok((await largest(await stepOf([variant, spec], batchSize, recompute))) <= 1e-4),
        );
      await t.test(`${variant}, weights train as well`, async () =>
        assert.ok(
          (await largest(await modelCase(variant, (name) => !name.includes(".1."), spec))) <= 1e-4,
        ),
      );
    }
  });

test("what half precision carries between kernels has the values of F32, but for its rounding", async (t) => {
  const target = { ...targets.cuda, softmaxInF32: true };
  for (const [variant, spec] of variants)
    for (const recompute of ["nothing", "blocks"] as const) {
      const step = await stepOf([variant, spec], 2, recompute);
      const halves = await stepOf([variant, spec], 2, recompute, "bf16");
      const narrow = fewerLaunches(halves.outputs, target);
      verify(narrow);
      const squares = topologicalOrder(Object.values(narrow)).filter(
        ({ shape }) => shape.length === 4 && shape.slice(2).every((dim) => dim === CONTEXT),
      );
      // Logits that are capped are so in F32.
      if (variant !== "gemma2") assert.ok(squares.every(({ dtype }) => dtype === "BF16"));
      assert.ok(squares.length > 1);
      const expected = await run(reference, step);
      const found = deviation(expected, await run(reference, { ...step, outputs: exact(narrow) }));
      t.diagnostic(`${variant}, ${recompute}: ${found.toExponential(1)}`);
      assert.ok(found <= 1e-4);
    }
});

/** The same graph without rounding. */
const exact = (outputs: Outputs) =>
  simplify(mapNodes(outputs, (x) => (isOp(x, "Cast") && x.dtype === "BF16" ? x.inputs[0]! : x)));

async function run(engine: Engine, { outputs, weights, feeds }: ModelCase): Promise<Results> {
  const program = await engine.compile(outputs, weights);
  const results = await program.run(feeds);
  await program.dispose();
  return results;
}

/** The largest of all outputs, relative to an output's largest value. */
function deviation(expected: Results, actual: Results): number {
  const deviations = Object.entries(expected).map(([name, values]) => {
    const found = actual[name]!;
    assert.equal(found.length, values.length, name);
    const scale = values.reduce((max, v) => Math.max(max, Math.abs(v)), 0);
    assert.ok(scale > 0, name);
    return values.reduce((max, v, i) => Math.max(max, Math.abs(v - found[i]!)), 0) / scale;
  });
  return Math.max(...deviations);
}

/** A training step of a fixture with temperatures that are not zero. */
async function stepOf(
  [variant, spec]: readonly [string, string],
  batchSize: number,
  recompute: "nothing" | "cheap" | "blocks",
  precision: Precision = "fp32",
): Promise<ModelCase> {
  const folder = fileURLToPath(new URL(`../fixtures/${variant}/`, import.meta.url));
  const opened = await openModel(folder, { adapter: `${folder}ssa/${spec}` });
  const { values } = opened.temperatures!;
  const shape = { batchSize, context: CONTEXT };
  const options = { recompute, precision, tiling: largeTiles };
  const random = createRandom(5);
  const ids = BigInt64Array.from({ length: batchSize * shape.context }, () =>
    BigInt(Math.floor(random.uniform() * opened.model.config.vocabSize)),
  );
  return {
    outputs: buildTrainingGraph(opened, shape, [...values.keys()], options),
    weights: boundWeights(opened),
    feeds: {
      ids,
      labels: ids.toReversed(),
      weights: new Float32Array(ids.length).fill(1),
      ...Object.fromEntries(values),
    },
  };
}
