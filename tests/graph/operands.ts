// Values that examples of ops are fed with.

import { createRandom } from "../../src/core/random.ts";
import { sizeOf } from "../../src/core/shape.ts";

export interface Operand {
  readonly shape: readonly number[];
  readonly values: Float32Array | BigInt64Array;
  /** Whether a gradient with respect to it exists. */
  readonly hasGradient: boolean;
}

const random = createRandom(20241212);
const filled = (shape: readonly number[], value: () => number): Operand => ({
  shape,
  values: Float32Array.from({ length: sizeOf(shape) }, value),
  hasGradient: true,
});

export const normal = (...shape: readonly number[]) => filled(shape, () => random.normal());
/** Multiples of 1/8, which half precision holds exactly, steps of the differences included. */
export const eighths = (...shape: readonly number[]) =>
  filled(shape, () => Math.round(8 * random.normal()) / 8);
export const given = (values: readonly number[]): Operand => ({
  shape: [values.length],
  values: Float32Array.from(values),
  hasGradient: true,
});
export const ids = (shape: readonly number[], values: readonly number[]): Operand => ({
  shape,
  values: BigInt64Array.from(values, BigInt),
  hasGradient: false,
});
/** An operand that the op takes as it is: a table, a condition, a normalization's weight in its statistics. */
export const fixed = (operand: Operand): Operand => ({ ...operand, hasGradient: false });
