// Ops composed of simpler ones, for providers that lack a kernel or have one that is wrong.

import { fixedShape, sizeOf } from "../../core/shape.ts";
import type { OpAttributes } from "../../graph/ops.ts";
import type { Tensor } from "../../graph/tensor.ts";
import type { Lowering, Rule } from "./lowering.ts";

/** op(a) · op(b) · alpha from a product without transposes. */
export const matMul: Rule<"MatMul"> = (context, operands, attributes, tensor) => {
  const [a, b] = operands;
  const [x, y] = tensor.inputs as [Tensor, Tensor];
  // Gemm transposes on every provider, but takes matrices only.
  if (x.shape.length === 2 && y.shape.length === 2) return gemm(context, operands, attributes);
  const { transposeA, transposeB, alpha } = attributes;
  // Of three products with attention's squares two scale the same rows.
  const scalesRows = context.target.fewLaunches && alpha !== 1;
  const scaled = (z: string) =>
    context.shared("Mul", [z, context.scalar(alpha, x.dtype)], ["scaled"])[0];
  const isShorter = scalesRows && sizeOf(y.shape) < sizeOf(x.shape);
  const [p, q] = [scalesRows && !isShorter ? scaled(a) : a, isShorter ? scaled(b) : b];
  const left = transposeA ? swapLast(context, p, x.shape.length) : p;
  const right = transposeB ? swapLast(context, q, y.shape.length) : q;
  const product = context.emit("MatMul", [left, right]);
  return alpha === 1 || scalesRows
    ? product
    : context.emit("Mul", [product, context.scalar(alpha, x.dtype)]);
};

/** As Gemm and FusedMatMul have them. */
export const scaling = ({ transposeA, transposeB, alpha }: OpAttributes["MatMul"]) => ({
  transA: Number(transposeA),
  transB: Number(transposeB),
  alpha: { float: alpha },
});

export const gemm = (context: Lowering, operands: readonly string[], of: OpAttributes["MatMul"]) =>
  context.emit("Gemm", operands, scaling(of));

function swapLast(context: Lowering, x: string, rank: number): string {
  const perm = Array.from({ length: rank }, (_, i) => i);
  perm.push(...perm.splice(-2).reverse());
  return context.emit("Transpose", [x], { perm });
}

/** Over the last axis. */
export const mean = (context: Lowering, x: string) => context.emit("ReduceMean", [x, [-1]]);

/** 1 / √(mean((x - mean x)²) + ε) */
export function layerNormInvStd(context: Lowering, x: string, tensor: Tensor, epsilon: number) {
  const centered = context.emit("Sub", [x, mean(context, x)]);
  return rmsNormInvStd(context, centered, tensor, epsilon);
}

/** 1 / √(mean(x²) + ε) */
export function rmsNormInvStd(context: Lowering, x: string, { dtype }: Tensor, epsilon: number) {
  const square = mean(context, context.emit("Mul", [x, x]));
  const shifted = context.emit("Add", [square, context.scalar(epsilon, dtype)]);
  return context.emit("Reciprocal", [context.emit("Sqrt", [shifted])]);
}

export const softmax = (context: Lowering, x: string) =>
  context.shared("Softmax", [x], ["softmax"], { axis: -1 })[0];

/**
 * max x - ln max softmax(x): no kernel of ReduceLogSumExp is as fast as the softmax's (WebGPU's even overflows), and
 * a training graph needs the softmax anyhow. The largest probability of V is at least 1 / V, so nothing is lost.
 * With LogSoftmax, which is x - logSumExp x: the difference of the two in their first column.
 */
export function logSumExp(context: Lowering, x: string): string {
  if (context.target.logSoftmax) {
    const first = (of: string) => context.slice(of, -1, 0, 1);
    return context.emit("Sub", [first(x), first(context.emit("LogSoftmax", [x], { axis: -1 }))]);
  }
  const largest = (of: string) => context.emit("ReduceMax", [of, [-1]]);
  return context.emit("Sub", [largest(x), context.emit("Log", [largest(softmax(context, x))])]);
}

/** Elements start to end of an axis; WebGPU slices floats only. */
export function slice(context: Lowering, x: string, axis: number, start: number, end: number) {
  const numbers = Array.from({ length: end - start }, (_, i) => start + i);
  return context.emit("Gather", [x, context.integers(numbers, [numbers.length])], { axis });
}

/** Elements of a block of the one-hot matrix, 64 MiB. */
const ONE_HOT_SIZE = 2 ** 24;

/** onehot(indices) · updates, some rows of the table at a time. */
export const scatterAdd: Rule<"ScatterAdd"> = (context, [indices, updates], _, tensor) => {
  const { inputs, shape, dtype } = tensor;
  const [rows, ...rest] = fixedShape(shape) as [number, ...number[]];
  const count = sizeOf(inputs[0]!.shape);
  const flatIds = context.emit("Reshape", [indices, [1, count]]);
  const flat = context.emit("Reshape", [updates, [count, sizeOf(rest)]]);
  const blockRows = Math.max(1, Math.floor(ONE_HOT_SIZE / count));
  const blocks: string[] = [];
  for (let start = 0; start < rows; start += blockRows) {
    const length = Math.min(blockRows, rows - start);
    const numbers = Array.from({ length }, (_, i) => start + i);
    const isRow = context.emit("Equal", [context.integers(numbers, [length, 1]), flatIds]);
    blocks.push(context.emit("MatMul", [context.cast(isRow, dtype), flat]));
  }
  const table = blocks.length === 1 ? blocks[0]! : context.emit("Concat", blocks, { axis: 0 });
  return context.emit("Reshape", [table, [rows, ...rest]]);
};
