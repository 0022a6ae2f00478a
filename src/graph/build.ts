// One constructor per op, in the words of NumPy and PyTorch.

import type { Dtype } from "../core/dtype.ts";
import { normalizeAxis, type Shape, sizeOf } from "../core/shape.ts";
import type { OpAttributes, OpType } from "./ops.ts";
import { node, type Tensor } from "./tensor.ts";

export const input = (name: string, shape: Shape, dtype: Dtype) =>
  node("Input", [], { name, shape, dtype });
export const parameter = (name: string, shape: Shape, dtype: Dtype = "F32") =>
  node("Parameter", [], { name, shape, dtype });

/** A constant from float values, row-major. */
export const constant = (values: Float32Array | readonly number[], shape: Shape) =>
  node("Constant", [], { data: Float32Array.from(values), shape, dtype: "F32" });
export const scalar = (value: number) => constant([value], []);
export const integers = (values: readonly number[], shape: Shape) =>
  node("Constant", [], { data: BigInt64Array.from(values, BigInt), shape, dtype: "I64" });

const unary = (op: OpType) => (x: Tensor) => node(op, [x], {});
const binary = (op: OpType) => (a: Tensor, b: Tensor) => node(op, [a, b], {});

export const add = binary("Add");
export const sub = binary("Sub");
export const mul = binary("Mul");
export const neg = unary("Neg");
export const exp = unary("Exp");
export const tanh = unary("Tanh");
export const sigmoid = unary("Sigmoid");
export const erf = unary("Erf");
export const gelu = (x: Tensor, approximate: "none" | "tanh") => node("Gelu", [x], { approximate });
export const cast = (x: Tensor, to: Dtype) => (x.dtype === to ? x : node("Cast", [x], { to }));
/** Codes, the factors of their blocks and, of the codes' kind, zero points, or biases in F32. */
export const dequantize = (parts: readonly Tensor[], to: Dtype = "F32") =>
  node("Dequantize", parts, { to });
export const lessOrEqual = binary("LessOrEqual");
export const and = binary("And");
export const where = (condition: Tensor, a: Tensor, b: Tensor) =>
  node("Where", [condition, a, b], {});

/** x times a number. */
export const scale = (x: Tensor, factor: number) => mul(x, cast(scalar(factor), x.dtype));

export const matMul = (a: Tensor, b: Tensor, options: Partial<OpAttributes["MatMul"]> = {}) =>
  node("MatMul", [a, b], { transposeA: false, transposeB: false, alpha: 1, ...options });

/** Sums over axes and keeps them as 1. */
export const reduceSum = (x: Tensor, axes: readonly number[]) =>
  axes.length === 0
    ? x
    : node("ReduceSum", [x], { axes: axes.map((axis) => normalizeAxis(axis, x.shape.length)) });
export const reduceMean = (x: Tensor, axes: readonly number[]) =>
  node("ReduceMean", [x], { axes: axes.map((axis) => normalizeAxis(axis, x.shape.length)) });
export const logSumExp = unary("LogSumExp");
export const softmax = unary("Softmax");

export const layerNorm = (x: Tensor, weight: Tensor, bias: Tensor, epsilon: number) =>
  node("LayerNorm", [x, weight, bias], { epsilon });
export const rmsNorm = (x: Tensor, weight: Tensor, epsilon: number) =>
  node("RmsNorm", [x, weight], { epsilon });
export const rotary = (x: Tensor, cos: Tensor, sin: Tensor) => node("Rotary", [x, cos, sin], {});

export const reshape = (x: Tensor, shape: Shape) => node("Reshape", [x], { shape });
export const transpose = (x: Tensor, permutation: readonly number[]) =>
  node("Transpose", [x], { permutation });
export const expand = (x: Tensor, shape: Shape) => node("Expand", [x], { shape });

/** Elements start to end (exclusive) of one axis. */
export const slice = (x: Tensor, axis: number, start: number, end: number) =>
  start === 0 && end === x.shape.at(axis)
    ? x
    : node("Slice", [x], { axis: normalizeAxis(axis, x.shape.length), start, end });

/** Zeros before and after the elements of one axis. */
export const pad = (x: Tensor, axis: number, before: number, after: number) =>
  before === 0 && after === 0
    ? x
    : node("Pad", [x], { axis: normalizeAxis(axis, x.shape.length), before, after });

export const concat = (parts: readonly Tensor[], axis: number) =>
  parts.length === 1
    ? parts[0]!
    : node("Concat", parts, { axis: normalizeAxis(axis, parts[0]!.shape.length) });
export const gather = (table: Tensor, indices: Tensor) => node("Gather", [table, indices], {});
export const scatterAdd = (indices: Tensor, updates: Tensor, rows: number) =>
  node("ScatterAdd", [indices, updates], { rows });
export const cumSum = unary("CumSum");

const firstOf = (x: Tensor) => slice(reshape(x, [sizeOf(x.shape)]), 0, 0, 1);

/**
 * x + 0 · of[0, ..]: the same value, but no scheduler can have it before `of`, and no merging of equal
 * subexpressions can take what is made of it for what was made of x.
 */
export function after(x: Tensor, ...of: readonly Tensor[]): Tensor {
  const firsts = of.map((y) => cast(firstOf(y), x.dtype));
  return firsts.length === 0 ? x : add(x, scale(firsts.reduce(add), 0));
}

/** The same of an x that has no gradient, nor gives one to `of`. */
export const constantAfter = (x: Tensor, of: Tensor) =>
  where(lessOrEqual(firstOf(of), firstOf(of)), x, x);
