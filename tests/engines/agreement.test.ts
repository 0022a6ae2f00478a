// Every op and the three small models, forward and backward, on every device that is present, against ONNX Runtime
// on the CPU. Prints the largest deviation per op; a device that is absent is listed with the reason.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { UserError } from "../../src/core/errors.ts";
import { DEVICE_NAMES } from "../../src/engines/devices.ts";
import { type Engine, openEngine, type Results } from "../../src/engines/index.ts";
import { temperatures } from "../../src/insertions/temperatures.ts";
import { caseGraph } from "../graph/case-graph.ts";
import { opCases } from "../graph/op-cases.ts";
import { modelCase, type ModelCase } from "./model-case.ts";

/** Largest deviation, relative to a tensor's largest value; for an op, to 1 where that is less. */
const tolerance = { op: 1e-5, model: 1e-4, half: 2 ** -11 };
/** All but the reference, and but `tfjs`, which is the first of its backends that works. */
const devices = DEVICE_NAMES.filter((name) => !["cpu", "tfjs"].includes(name));
const variants = [
  ["gpt2", "default"],
  ["llama", "default"],
  ["gpt_neox", "default"],
  ["gemma2", "full"],
  ["gpt2", "ssmax"],
  ["mistral", "logn"],
  ["gpt2", "own"],
  ["gpt2", "exp-exp"],
] as const;

let reference: Engine;
before(async () => (reference = await openEngine("cpu", { threads: 1 })));
after(() => reference.dispose());

/** The engine of a device, or why there is none. */
async function open(name: string): Promise<Engine | string> {
  try {
    return await openEngine(name, { threads: 1 });
  } catch (error) {
    if (error instanceof UserError) return error.message;
    throw error;
  }
}

async function runOn(engine: Engine, { outputs, weights, feeds }: ModelCase): Promise<Results> {
  const program = await engine.compile(outputs, weights);
  const results = await program.run(feeds);
  await program.dispose();
  return results;
}

/** The largest difference over all outputs, each relative to its largest expected value, but at least to `least`. */
async function deviation(engine: Engine, example: ModelCase, least: number): Promise<number> {
  const [expected, actual] = [await runOn(reference, example), await runOn(engine, example)];
  assert.deepEqual(Object.keys(actual), Object.keys(example.outputs));
  const deviations = Object.entries(expected).map(([name, values]) => {
    assert.equal(actual[name]!.length, values.length, name);
    const largest = values.reduce((max, v) => Math.max(max, Math.abs(v)), least);
    const difference = values.reduce(
      (max, v, i) => Math.max(max, Math.abs(v - actual[name]![i]!)),
      0,
    );
    return difference / largest;
  });
  return deviations.reduce((max, d) => Math.max(max, d), 0); // NaN stays NaN
}

/** The second layer's weights stay bound to the model's file; all else is an input and has a gradient. */
const isTrained = (name: string) => temperatures.owns(name) || !name.includes(".1.");

for (const name of devices)
  test(name, async (t) => {
    const engine = await open(name);
    if (typeof engine === "string") return t.skip(engine);
    t.diagnostic(engine.description);

    for (const [op, { cases }] of Object.entries(opCases))
      await t.test(op, async (t) => {
        let largest = 0;
        for (const example of cases) {
          const { outputs, feeds } = caseGraph(example);
          const graph = { outputs, feeds, weights: example.parameters ?? new Map() };
          if (example.isHalf && !engine.precisions.includes("fp16")) {
            t.diagnostic(`${op}, ${example.name}: not in half precision`);
            continue;
          }
          const found = await deviation(engine, graph, 1);
          // What is rounded to half precision and back a provider may leave as it was: half a unit in the last place.
          const most = example.isHalf ? tolerance.half : tolerance.op;
          assert.ok(found <= most, `${example.name}: ${found}`);
          largest = Math.max(largest, found);
        }
        t.diagnostic(`${op}: ${largest.toExponential(1)} over ${cases.length} examples`);
      });

    // The others train on WebGPU (webgpu.test.ts), where a software adapter compiles each of their graphs for long.
    const untrained = variants.filter(([variant]) => ["gemma2", "mistral"].includes(variant));
    for (const [variant, spec] of name === "webgpu" ? untrained : variants)
      await t.test(variant, async (t) => {
        const found = await deviation(engine, await modelCase(variant, isTrained, spec), 0);
        t.diagnostic(`${variant}: ${found.toExponential(1)}`);
        assert.ok(found <= tolerance.model, `${found}`);
      });

    await engine.dispose();
  });
