// The vocabulary: one row per op with its attributes, its shape and dtype rule, and whether its result may lie where an
// operand lay.
// The gradient table (vjps.ts) and each engine's lowering have the same rows; the compiler checks that none is missing.

import type { Dtype } from "../core/dtype.ts";
import { invariant } from "../core/errors.ts";
import { broadcastShapes, formatShape, normalizeAxis, sameShape, sizeOf } from "../core/shape.ts";
import type { Dim, Shape } from "../core/shape.ts";

type None = Readonly<Record<string, never>>;
type Leaf = { readonly name: string; readonly shape: Shape; readonly dtype: Dtype };
type Reduction = { readonly axes: readonly number[] };
type Norm = { readonly epsilon: number };

/** Arithmetic that engines have under the same names. */
export const ARITHMETIC = ["Add", "Sub", "Mul", "Neg", "Exp", "Tanh", "Sigmoid", "Erf"] as const;
/** Ops without attributes whose name says all. */
type Plain = (typeof ARITHMETIC)[number] | "LessOrEqual" | "And";

export interface OpAttributes extends Readonly<Record<Plain, None>> {
  /** Fed at each run. */
  Input: Leaf;
  /** Bound when the graph is compiled, by name, and resident on the device. */
  Parameter: Leaf;
  Constant: {
    readonly data: Float32Array | BigInt64Array;
    readonly shape: Shape;
    readonly dtype: "F32" | "I64";
  };
  /** x Φ(x), exact or with the tanh approximation (Hendrycks and Gimpel, 2016). */
  Gelu: { readonly approximate: "none" | "tanh" };
  Cast: { readonly to: Dtype };
  /**
   * (codes, factors, shifts?): integers, each times the factor of its block, which are equal parts of the last axis. Codes are
   * I8, or U8 of two signed ones of 4 bits, the lower bits first. The third operand, where there is one, shifts each
   * block: zero points of the codes' kind, taken from them before the factor, or biases in F32, added after it.
   */
  Dequantize: { readonly to: Dtype };
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

/** Rows of a table that follow from the op's name. */
export const each = <Op extends OpType, Row>(names: readonly Op[], rowOf: (op: Op) => Row) =>
  Object.fromEntries(names.map((op) => [op, rowOf(op)])) as Record<Op, Row>;

export interface Tensor<Op extends OpType = OpType> {
  readonly op: Op;
  readonly inputs: readonly Tensor[];
  readonly attributes: OpAttributes[Op];
  readonly shape: Shape;
  readonly dtype: Dtype;
}

type Result = Pick<Tensor, "shape" | "dtype">;
/** As many as the op takes; the rows of tables look at no others. */
export type Operands<Value> = readonly [Value, Value, Value, ...Value[]];
type Inputs = Operands<Tensor>;

interface OpRow<Op extends OpType> {
  /** How many tensors it takes, one of these numbers; undefined: any number, at least one. */
  readonly takes: readonly number[] | undefined;
  readonly rule: (inputs: Inputs, attributes: OpAttributes[Op]) => Result;
  /** Its values' place: its own; that of an operand of the same size that nothing else needs; the operand's very bytes. */
  readonly place: "own" | "over" | "view";
  /** Each row of the last axis by itself, operands broadcast. */
  readonly isRowwise: boolean;
}

const row =
  (place: OpRow<OpType>["place"], isRowwise: boolean) =>
  <Op extends OpType>(takes: OpRow<Op>["takes"], rule: OpRow<Op>["rule"]): OpRow<Op> => ({
    takes,
    rule,
    place,
    isRowwise,
  });
const fresh = row("own", false);
const rowwise = row("own", true);
const over = row("over", true);
const view = row("view", false);

/** Shape and dtype of an op's result; throws where the op does not take these inputs. */
export function resultOf<Op extends OpType>(
  op: Op,
  inputs: readonly Tensor[],
  attributes: OpAttributes[Op],
): Result {
  const { takes, rule } = ops[op] as OpRow<Op>;
  const isRight = takes ? takes.includes(inputs.length) : inputs.length > 0;
  invariant(isRight, `takes ${takes?.join(" or ") ?? "one or more"} inputs, got ${inputs.length}`);
  const { shape, dtype } = rule(inputs as Inputs, attributes);
  return { shape, dtype };
}

function float(tensor: Tensor): Tensor {
  const isFloat = ["F32", "F16", "BF16"].includes(tensor.dtype);
  invariant(isFloat, `${tensor.dtype} where a float is needed`);
  return tensor;
}

const leaf = (_: Inputs, { shape, dtype }: Result): Result => ({ shape, dtype });

const unary = ([x]: Inputs): Result => float(x);

function binary([a, b]: Inputs): Result {
  invariant(a.dtype === b.dtype, `${a.dtype} with ${b.dtype}`);
  return { shape: broadcastShapes(a.shape, b.shape), dtype: a.dtype };
}

/** The last axis reduced to 1. */
const statistic = ([x]: Inputs): Result => withAxis(float(x), -1, () => 1);

/** (x, weight of the last axis, ..) gives x's shape. */
function normalization([x, ...affine]: Inputs): Result {
  for (const { shape } of affine)
    invariant(sameShape(shape, x.shape.slice(-1)), `weight ${formatShape(shape)}`);
  return float(x);
}

const reduced = ([x]: Inputs, { axes }: Reduction): Result =>
  axes.reduce<Result>((result, axis) => withAxis(result, axis, () => 1), float(x));

function withAxis({ shape, dtype }: Result, axis: number, change: (dim: Dim) => Dim): Result {
  const at = normalizeAxis(axis, shape.length);
  return { shape: shape.map((dim, i) => (i === at ? change(dim) : dim)), dtype };
}

/** a + b; numbers add, names join. */
const addDims = (a: Dim, b: Dim): Dim =>
  typeof a === "number" && typeof b === "number" ? a + b : `${a} + ${b}`;

const numElements = (shape: Shape): number | undefined =>
  shape.every((dim) => typeof dim === "number") ? sizeOf(shape) : undefined;

export const ops: { readonly [Op in OpType]: OpRow<Op> } = {
  ...each(["Input", "Parameter"], () => fresh<"Input" | "Parameter">([0], leaf)),
  Constant: fresh([0], (_, { data, shape, dtype }) => {
    invariant(numElements(shape) === data.length, `${data.length} values`);
    return { shape, dtype };
  }),
  ...each(["Add", "Sub", "Mul"], () => over<OpType>([2], binary)),
  ...each(["Neg", "Exp", "Tanh", "Sigmoid", "Erf"], () => over<OpType>([1], unary)),
  Gelu: rowwise([1], unary),
  Cast: rowwise([1], ([{ shape }], { to }) => ({ shape, dtype: to })),
  Dequantize: fresh([2, 3], ([codes, factors, shift], { to }) => {
    invariant(codes.dtype === "I8" || codes.dtype === "U8", `${codes.dtype} as codes`);
    const perCode = codes.dtype === "U8" ? 2 : 1;
    const { shape } = withAxis(codes, -1, (dim) => perCode * Number(dim));
    const isShift = !shift || shift.dtype === codes.dtype || shift.dtype === "F32";
    invariant(isShift, `${shift?.dtype} as zero points or biases`);
    const isWhole = Number(shape.at(-1)) % Number(float(factors).shape.at(-1)) === 0;
    const isAlike = sameShape(shape.slice(0, -1), factors.shape.slice(0, -1));
    invariant(isWhole && isAlike, `factors ${formatShape(factors.shape)}`);
    return { shape, dtype: to };
  }),
  LessOrEqual: rowwise([2], (inputs) => ({ ...binary(inputs), dtype: "BOOL" })),
  And: rowwise([2], (inputs) => {
    const result = binary(inputs);
    invariant(result.dtype === "BOOL", `${result.dtype} where BOOL is needed`);
    return result;
  }),
  Where: rowwise([3], ([condition, a, b]) => {
    invariant(condition.dtype === "BOOL", `${condition.dtype} as a condition`);
    const { shape, dtype } = binary([a, b, b]);
    return { shape: broadcastShapes(condition.shape, shape), dtype };
  }),
  MatMul: fresh([2, 3], ([a, b, row], { transposeA, transposeB }) => {
    invariant(float(a).dtype === b.dtype, `${a.dtype} with ${b.dtype}`);
    invariant(a.shape.length >= 2 && b.shape.length >= 2, "a matrix has two axes");
    const [m, k] = transposeA ? [a.shape.at(-1)!, a.shape.at(-2)!] : a.shape.slice(-2);
    const [k2, n] = transposeB ? [b.shape.at(-1)!, b.shape.at(-2)!] : b.shape.slice(-2);
    invariant(k === k2, `inner dimensions ${k} and ${k2}`);
    const isRow = (row as Tensor | undefined) === undefined || sameShape(row.shape, [n!]);
    invariant(isRow, "a row as long as the product's");
    const batch = broadcastShapes(a.shape.slice(0, -2), b.shape.slice(0, -2));
    return { shape: [...batch, m!, n!], dtype: a.dtype };
  }),
  ...each(["ReduceSum", "ReduceMean"], () => fresh<"ReduceSum" | "ReduceMean">([1], reduced)),
  LogSumExp: rowwise([1], statistic),
  Softmax: over([1], unary),
  LayerNorm: rowwise([3], normalization),
  ...each(["LayerNormMean", "LayerNormInvStd"], () => rowwise<OpType>([3], statistic)),
  RmsNorm: rowwise([2], normalization),
  RmsNormInvStd: rowwise([2], statistic),
  Rotary: fresh([3], ([x, cos, sin]) => {
    const [width, rotated] = [x.shape.at(-1)!, cos.shape.at(-1)!];
    invariant(sameShape(cos.shape, sin.shape), "cos and sin differ in shape");
    invariant(2 * Number(rotated) <= Number(width), `rotates 2 · ${rotated} of ${width}`);
    broadcastShapes(x.shape.slice(0, -1), cos.shape.slice(0, -1));
    return float(x);
  }),
  Reshape: view([1], ([x], { shape }) => {
    const isWhole = numElements(x.shape) === numElements(shape);
    invariant(isWhole, `${formatShape(x.shape)} to ${formatShape(shape)}`);
    return { shape, dtype: x.dtype };
  }),
  Transpose: fresh([1], ([x], { permutation }) => {
    const sorted = permutation.toSorted((a, b) => a - b);
    const isPermutation = sorted.length === x.shape.length && sorted.every((at, i) => at === i);
    invariant(isPermutation, `permutation ${permutation.join(" ")}`);
    return { shape: permutation.map((axis) => x.shape[axis]!), dtype: x.dtype };
  }),
  Expand: fresh([1], ([x], { shape }) => {
    invariant(sameShape(broadcastShapes(x.shape, shape), shape), `to ${formatShape(shape)}`);
    return { shape, dtype: x.dtype };
  }),
  Slice: fresh([1], ([x], { axis, start, end }) => {
    const dim = Number(x.shape.at(axis));
    invariant(0 <= start && start < end && end <= dim, `${start}..${end} of ${dim}`);
    return withAxis(x, axis, () => end - start);
  }),
  Pad: fresh([1], ([x], { axis, before, after }) => {
    invariant(before >= 0 && after >= 0, "negative padding");
    return withAxis(x, axis, (dim) => addDims(dim, before + after));
  }),
  Concat: fresh(undefined, ([first, ...rest], { axis }) =>
    rest.reduce<Result>((joined, { shape, dtype }) => {
      invariant(dtype === joined.dtype, `${dtype} with ${joined.dtype}`);
      const result = withAxis(joined, axis, (dim) => addDims(dim, shape.at(axis)!));
      const others = withAxis({ shape, dtype }, axis, () => result.shape.at(axis)!);
      invariant(sameShape(others.shape, result.shape), `${formatShape(shape)} beside the others`);
      return result;
    }, first),
  ),
  Gather: fresh([2], ([table, indices]) => {
    invariant(indices.dtype === "I64", `${indices.dtype} indices`);
    return { shape: [...indices.shape, ...table.shape.slice(1)], dtype: table.dtype };
  }),
  ScatterAdd: fresh([2], ([indices, updates], { rows }) => {
    invariant(indices.dtype === "I64", `${indices.dtype} indices`);
    const { length } = indices.shape;
    invariant(sameShape(updates.shape.slice(0, length), indices.shape), "updates per index");
    return { shape: [rows, ...updates.shape.slice(length)], dtype: float(updates).dtype };
  }),
  CumSum: fresh([1], ([x]) => x),
};
