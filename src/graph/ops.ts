// The vocabulary: one row per op with its attributes, its shape and dtype rule, and whether its result may lie where an
// operand lay.
// The gradient table (vjps.ts) and each engine's lowering have the same rows; the compiler checks that none is missing.

import type { Dtype } from "../core/dtype.ts";
import { invariant } from "../core/errors.ts";
import {
  broadcastShapes,
  type Dim,
  formatShape,
  normalizeAxis,
  sameShape,
  type Shape,
} from "../core/shape.ts";

type None = Readonly<Record<string, never>>;
type Leaf = { readonly name: string; readonly shape: Shape; readonly dtype: Dtype };
type Reduction = { readonly axes: readonly number[] };
type Norm = { readonly epsilon: number };

export interface OpAttributes {
  /** Fed at each run. */
  Input: Leaf;
  /** Bound when the graph is compiled, by name, and resident on the device. */
  Parameter: Leaf;
  Constant: {
    readonly data: Float32Array | BigInt64Array;
    readonly shape: Shape;
    readonly dtype: "F32" | "I64";
  };
  Add: None;
  Sub: None;
  Mul: None;
  Div: None;
  Neg: None;
  Exp: None;
  Log: None;
  Tanh: None;
  Sigmoid: None;
  Erf: None;
  /** x Φ(x), exact or with the tanh approximation (Hendrycks and Gimpel, 2016). */
  Gelu: { readonly approximate: "none" | "tanh" };
  Cast: { readonly to: Dtype };
  LessOrEqual: None;
  And: None;
  /** Where(condition, a, b). */
  Where: None;
  /** alpha · op(a) · op(b) over the last two axes, leading axes broadcast; plus a row, if it is given, where both are matrices. */
  MatMul: { readonly transposeA: boolean; readonly transposeB: boolean; readonly alpha: number };
  /** Sum and mean over axes, which stay as 1. */
  ReduceSum: Reduction;
  ReduceMean: Reduction;
  /** Over the last axis, which stays as 1. */
  LogSumExp: None;
  /** Over the last axis. */
  Softmax: None;
  /** (x, weight, bias) over the last axis; its statistics, [.., 1], are the same node's further outputs. */
  LayerNorm: Norm;
  LayerNormMean: Norm;
  LayerNormInvStd: Norm;
  /** (x, weight) over the last axis, and 1 / rms(x). */
  RmsNorm: Norm;
  RmsNormInvStd: Norm;
  /** (x, cos, sin): rotates the halves of the leading 2·R elements of the last axis; cos and sin are [.., R]. */
  Rotary: None;
  Reshape: { readonly shape: Shape };
  Transpose: { readonly permutation: readonly number[] };
  Expand: { readonly shape: Shape };
  Slice: { readonly axis: number; readonly start: number; readonly end: number };
  Pad: { readonly axis: number; readonly before: number; readonly after: number };
  Concat: { readonly axis: number };
  /** Rows of a table: (table, indices) gives indices.shape + table.shape[1..]. */
  Gather: None;
  /** Sums rows into a table: (indices, updates) gives [rows, ..]; the transpose of Gather. */
  ScatterAdd: { readonly rows: number };
  /** Inclusive, over the last axis. */
  CumSum: None;
}

export type OpType = keyof OpAttributes;

export interface Tensor<Op extends OpType = OpType> {
  readonly op: Op;
  readonly inputs: readonly Tensor[];
  readonly attributes: OpAttributes[Op];
  readonly shape: Shape;
  readonly dtype: Dtype;
}

interface Result {
  readonly shape: Shape;
  readonly dtype: Dtype;
}
type Inputs = readonly Tensor[];
type ShapeRule<Op extends OpType> = (inputs: Inputs, attributes: OpAttributes[Op]) => Result;

interface OpRow<Op extends OpType> {
  readonly result: ShapeRule<Op>;
  /** Its values' place: its own; that of an operand of the same size that nothing else needs; the operand's very bytes. */
  readonly place: "own" | "over" | "view";
  /** Each row of the last axis by itself, operands broadcast. */
  readonly isRowwise: boolean;
}

const row =
  (place: OpRow<OpType>["place"], isRowwise: boolean) =>
  <Op extends OpType>(result: ShapeRule<Op>): OpRow<Op> => ({ result, place, isRowwise });
const fresh = row("own", false);
const rowwise = row("own", true);
const over = row("over", true);
const view = row("view", false);

const halves: readonly Dtype[] = ["F32", "F16", "BF16"];

function operands(inputs: Inputs, count: number): Tensor[] {
  invariant(inputs.length === count, `takes ${count} inputs, got ${inputs.length}`);
  return [...inputs];
}

function float(tensor: Tensor): Tensor {
  invariant(halves.includes(tensor.dtype), `${tensor.dtype} where a float is needed`);
  return tensor;
}

const leaf = (_: Inputs, { shape, dtype }: { shape: Shape; dtype: Dtype }): Result => ({
  shape,
  dtype,
});

function unary(inputs: Inputs): Result {
  const [x] = operands(inputs, 1);
  return float(x!);
}

function binary(inputs: Inputs): Result {
  const [a, b] = operands(inputs, 2);
  invariant(a!.dtype === b!.dtype, `${a!.dtype} with ${b!.dtype}`);
  return { shape: broadcastShapes(a!.shape, b!.shape), dtype: a!.dtype };
}

/** The last axis reduced to 1. */
function statistic(count: number) {
  return (inputs: Inputs): Result => {
    const [x] = operands(inputs, count);
    return { shape: [...float(x!).shape.slice(0, -1), 1], dtype: x!.dtype };
  };
}

/** (x, weight of the last axis, ..) gives x's shape. */
function normalization(count: number) {
  return (inputs: Inputs): Result => {
    const [x, ...affine] = operands(inputs, count);
    for (const { shape } of affine)
      invariant(sameShape(shape, x!.shape.slice(-1)), `weight ${formatShape(shape)}`);
    return float(x!);
  };
}

function reduced(inputs: Inputs, { axes }: Reduction): Result {
  const [x] = operands(inputs, 1);
  const gone = new Set(axes.map((axis) => normalizeAxis(axis, x!.shape.length)));
  return { shape: x!.shape.map((dim, i) => (gone.has(i) ? 1 : dim)), dtype: float(x!).dtype };
}

function withAxis({ shape, dtype }: Tensor, axis: number, change: (dim: Dim) => Dim): Result {
  const at = normalizeAxis(axis, shape.length);
  return { shape: shape.map((dim, i) => (i === at ? change(dim) : dim)), dtype };
}

/** a + b; numbers add, names join. */
function addDims(a: Dim, b: Dim): Dim {
  return typeof a === "number" && typeof b === "number" ? a + b : `${a} + ${b}`;
}

function numElements(shape: Shape): number | undefined {
  let size = 1;
  for (const dim of shape) {
    if (typeof dim === "string") return undefined;
    size *= dim;
  }
  return size;
}

export const ops: { readonly [Op in OpType]: OpRow<Op> } = {
  Input: fresh(leaf),
  Parameter: fresh(leaf),
  Constant: fresh((_, { data, shape, dtype }) => {
    invariant(numElements(shape) === data.length, `${data.length} values`);
    return { shape, dtype };
  }),
  Add: over(binary),
  Sub: over(binary),
  Mul: over(binary),
  Div: over(binary),
  Neg: over(unary),
  Exp: over(unary),
  Log: over(unary),
  Tanh: over(unary),
  Sigmoid: over(unary),
  Erf: over(unary),
  Gelu: rowwise(unary),
  Cast: rowwise((inputs, { to }) => ({ shape: operands(inputs, 1)[0]!.shape, dtype: to })),
  LessOrEqual: rowwise((inputs) => ({ ...binary(inputs), dtype: "BOOL" })),
  And: rowwise((inputs) => {
    const result = binary(inputs);
    invariant(result.dtype === "BOOL", `${result.dtype} where BOOL is needed`);
    return result;
  }),
  Where: rowwise((inputs) => {
    const [condition, a, b] = operands(inputs, 3);
    invariant(condition!.dtype === "BOOL", `${condition!.dtype} as a condition`);
    const { shape, dtype } = binary([a!, b!]);
    return { shape: broadcastShapes(condition!.shape, shape), dtype };
  }),
  MatMul: fresh((inputs, { transposeA, transposeB }) => {
    const [a, b, row] = operands(inputs, inputs.length === 3 ? 3 : 2);
    invariant(float(a!).dtype === b!.dtype, `${a!.dtype} with ${b!.dtype}`);
    invariant(a!.shape.length >= 2 && b!.shape.length >= 2, "a matrix has two axes");
    const [m, k] = transposeA ? [a!.shape.at(-1)!, a!.shape.at(-2)!] : a!.shape.slice(-2);
    const [k2, n] = transposeB ? [b!.shape.at(-1)!, b!.shape.at(-2)!] : b!.shape.slice(-2);
    invariant(k === k2, `inner dimensions ${k} and ${k2}`);
    invariant(!row || sameShape(row.shape, [n!]), "a row as long as the product's");
    const batch = broadcastShapes(a!.shape.slice(0, -2), b!.shape.slice(0, -2));
    return { shape: [...batch, m!, n!], dtype: a!.dtype };
  }),
  ReduceSum: fresh(reduced),
  ReduceMean: fresh(reduced),
  LogSumExp: rowwise(statistic(1)),
  Softmax: over(unary),
  LayerNorm: rowwise(normalization(3)),
  LayerNormMean: rowwise(statistic(3)),
  LayerNormInvStd: rowwise(statistic(3)),
  RmsNorm: rowwise(normalization(2)),
  RmsNormInvStd: rowwise(statistic(2)),
  Rotary: fresh((inputs) => {
    const [x, cos, sin] = operands(inputs, 3);
    const [width, rotated] = [x!.shape.at(-1)!, cos!.shape.at(-1)!];
    invariant(sameShape(cos!.shape, sin!.shape), "cos and sin differ in shape");
    invariant(2 * Number(rotated) <= Number(width), `rotates 2 · ${rotated} of ${width}`);
    broadcastShapes(x!.shape.slice(0, -1), cos!.shape.slice(0, -1));
    return float(x!);
  }),
  Reshape: view((inputs, { shape }) => {
    const [x] = operands(inputs, 1);
    const [from, to] = [numElements(x!.shape), numElements(shape)];
    invariant(from === to, `${formatShape(x!.shape)} to ${formatShape(shape)}`);
    return { shape, dtype: x!.dtype };
  }),
  Transpose: fresh((inputs, { permutation }) => {
    const [x] = operands(inputs, 1);
    const sorted = permutation.toSorted((a, b) => a - b);
    const isPermutation = sorted.length === x!.shape.length && sorted.every((at, i) => at === i);
    invariant(isPermutation, `permutation ${permutation.join(" ")}`);
    return { shape: permutation.map((axis) => x!.shape[axis]!), dtype: x!.dtype };
  }),
  Expand: fresh((inputs, { shape }) => {
    const [x] = operands(inputs, 1);
    invariant(sameShape(broadcastShapes(x!.shape, shape), shape), `to ${formatShape(shape)}`);
    return { shape, dtype: x!.dtype };
  }),
  Slice: fresh((inputs, { axis, start, end }) => {
    const [x] = operands(inputs, 1);
    const dim = Number(x!.shape.at(axis));
    invariant(0 <= start && start < end && end <= dim, `${start}..${end} of ${dim}`);
    return withAxis(x!, axis, () => end - start);
  }),
  Pad: fresh((inputs, { axis, before, after }) => {
    invariant(before >= 0 && after >= 0, "negative padding");
    return withAxis(operands(inputs, 1)[0]!, axis, (dim) => addDims(dim, before + after));
  }),
  Concat: fresh((inputs, { axis }) => {
    invariant(inputs.length > 0, "nothing to join");
    const [first, ...rest] = inputs;
    let result: Result = first!;
    for (const { shape, dtype } of rest) {
      invariant(dtype === result.dtype, `${dtype} with ${result.dtype}`);
      result = withAxis(result as Tensor, axis, (dim) => addDims(dim, shape.at(axis)!));
      const others = shape.map((dim, i) =>
        i === normalizeAxis(axis, shape.length) ? result.shape[i]! : dim,
      );
      invariant(sameShape(others, result.shape), `${formatShape(shape)} beside the others`);
    }
    return { shape: result.shape, dtype: result.dtype };
  }),
  Gather: fresh((inputs) => {
    const [table, indices] = operands(inputs, 2);
    invariant(indices!.dtype === "I64", `${indices!.dtype} indices`);
    return { shape: [...indices!.shape, ...table!.shape.slice(1)], dtype: table!.dtype };
  }),
  ScatterAdd: fresh((inputs, { rows }) => {
    const [indices, updates] = operands(inputs, 2);
    invariant(indices!.dtype === "I64", `${indices!.dtype} indices`);
    const { length } = indices!.shape;
    invariant(sameShape(updates!.shape.slice(0, length), indices!.shape), "updates per index");
    return { shape: [rows, ...updates!.shape.slice(length)], dtype: float(updates!).dtype };
  }),
  CumSum: fresh((inputs) => operands(inputs, 1)[0]!),
};
