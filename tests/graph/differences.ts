// The gradients of an example's graph against central differences of its value.

import assert from "node:assert/strict";
import type { Engine } from "../../src/engines/index.ts";
import { type CaseGraph, gradientName, inputName } from "./case-graph.ts";
import type { OpCase } from "./op-cases.ts";

/** A power of two, so that x ± h is exact; truncation is of the order of h⁴ and rounding of 1e-7 / h. */
const h = 1 / 32;

/** Gives the value that was computed. */
export async function compareWithDifferences(
  engine: Engine,
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
  return analytic["value"]!;
}
