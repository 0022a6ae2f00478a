// An example of an op as a graph that can run: its value, and the gradients of a weighted sum of its elements.

import { createRandom } from "../../src/core/random.ts";
import { fixedShape, sizeOf } from "../../src/core/shape.ts";
import { gradients } from "../../src/graph/autodiff.ts";
import { constant, input, mul, reduceSum } from "../../src/graph/build.ts";
import type { Outputs, Tensor } from "../../src/graph/tensor.ts";
import type { OpCase } from "./op-cases.ts";

export interface CaseGraph {
  readonly inputs: readonly Tensor[];
  readonly value: Tensor;
  /** Σ cotangent · value; unequal weights, so that a gradient that only sums rightly is caught. */
  readonly total: Tensor;
  readonly cotangent: Float32Array;
  readonly feeds: Readonly<Record<string, Float32Array | BigInt64Array>>;
  /** `value`, and `gradientName` of each operand that has one. */
  readonly outputs: Outputs;
}

export const inputName = (operand: number) => `x${operand}`;
export const gradientName = (operand: number) => `grad.x${operand}`;

export function caseGraph({ operands, build }: OpCase): CaseGraph {
  const inputs = operands.map(({ shape, values }, i) =>
    input(inputName(i), shape, values instanceof Float32Array ? "F32" : "I64"),
  );
  const value = build(...inputs);
  const random = createRandom(7);
  const cotangent = Float32Array.from({ length: sizeOf(value.shape) }, () => random.normal());
  const weighted = mul(value, constant(cotangent, fixedShape(value.shape)));
  const total = reduceSum(
    weighted,
    value.shape.map((_, i) => i),
  );
  const wrt = inputs.filter((_, i) => operands[i]!.hasGradient);
  const grads = wrt.length > 0 ? gradients(total, wrt) : [];
  return {
    inputs,
    value,
    total,
    cotangent,
    feeds: Object.fromEntries(operands.map(({ values }, i) => [inputName(i), values])),
    outputs: {
      value,
      ...Object.fromEntries(grads.map((grad, i) => [gradientName(inputs.indexOf(wrt[i]!)), grad])),
    },
  };
}
