// The same values from fewer, larger nodes, for devices on which every node is the launch of a kernel. What processors
// compute stays as it is.

import { fixedShape, sameShape, sizeOf } from "../core/shape.ts";
import * as g from "./build.ts";
import { columnAfter, narrowRowDots, narrowSoftmax, wideJoin } from "./narrow.ts";
import { ops } from "./ops.ts";
import { mapNodes, simplify } from "./passes.ts";
import { isOp, node, type Outputs, type Tensor, topologicalOrder } from "./tensor.ts";

type Rewrite = (x: Tensor) => Tensor | undefined;

const narrowed: readonly Rewrite[] = [narrowSoftmax, narrowRowDots];

/** In each phase, a node is what the first row that has something for it makes of it. */
const phases: readonly (readonly Rewrite[])[] = [
  [asMean, asNorm, outer, scaledOuter, rowDots, sumApart, wideJoin, columnAfter],
  [inRows],
  [headsOfAll, joinedHeads, afterOnes, ofWholes, whole, withRow],
];

/**
 * Outputs and inputs are of the same names and values, but may be of other shapes of the same size. `softmaxInF32`: the
 * device's softmax of half precision computes in F32.
 */
export function fewerLaunches(outputs: Outputs, target: { readonly softmaxInF32?: boolean }) {
  let graph = bare(outputs);
  for (const rows of target.softmaxInF32 ? [narrowed, ...phases] : phases) {
    const firstOf = (x: Tensor) =>
      rows.reduce<Tensor | undefined>((found, row) => found ?? row(x), undefined);
    graph = simplify(mapNodes(graph, (x) => firstOf(x) ?? x));
  }
  return inputsAsUsed(bare(graph));
}

/** Outputs without what only reshapes them: results are read as flat arrays. */
function bare(outputs: Outputs): Outputs {
  return Object.fromEntries(Object.entries(outputs).map(([name, x]) => [name, unshaped(x)]));
}

/** Inputs that are used in one other shape only are fed in it. */
function inputsAsUsed(outputs: Outputs): Outputs {
  const users = new Map<Tensor, Tensor[]>();
  for (const user of topologicalOrder(Object.values(outputs)))
    for (const x of user.inputs) users.set(x, [...(users.get(x) ?? []), user]);
  const asUsed = (x: Tensor, original: Tensor) => {
    const [user, ...others] = users.get(original) ?? [];
    return isOp(x, "Input") && user && isOp(user, "Reshape") && others.length === 0
      ? node("Input", [], { ...x.attributes, shape: user.shape })
      : x;
  };
  return simplify(mapNodes(outputs, asUsed));
}

/** A sum over n elements times 1 / n. */
function asMean(x: Tensor): Tensor | undefined {
  const [sum, factor] = x.inputs;
  if (!isOp(x, "Mul") || !isOp(sum!, "ReduceSum") || !isOp(factor!, "Constant")) return undefined;
  const count = sizeOf(sum.inputs[0]!.shape) / sizeOf(sum.shape);
  const isInverse =
    factor.shape.length === 0 && factor.attributes.data[0] === Math.fround(1 / count);
  return isInverse ? g.reduceMean(sum.inputs[0]!, sum.attributes.axes) : undefined;
}

/** x̂ = (x - mean) / deviation of a layer normalization: one with weights of one and no bias. */
function asNorm(x: Tensor): Tensor | undefined {
  const [centered, invStd] = x.inputs;
  if (!isOp(x, "Mul") || !isOp(centered!, "Sub") || !isOp(invStd!, "LayerNormInvStd"))
    return undefined;
  const [from, mean] = centered.inputs;
  if (!isOp(mean!, "LayerNormMean") || mean.inputs[0] !== from || invStd.inputs[0] !== from)
    return undefined;
  const width = Number(from!.shape.at(-1));
  const [one, zero] = [1, 0].map((value) => g.constant(Array<number>(width).fill(value), [width]));
  return g.layerNorm(from!, one!, zero!, invStd.attributes.epsilon);
}

/** a bᵀ of columns is a times b as a row, which no product of matrices makes as fast. */
function outer(x: Tensor): Tensor | undefined {
  const [a, b] = x.inputs;
  if (!isOp(x, "MatMul") || a!.shape.at(-1) !== 1 || x.attributes.transposeA) return undefined;
  if (x.inputs.length > 2 || x.attributes.alpha !== 1) return undefined;
  const row = [...b!.shape.slice(0, -2), 1, x.shape.at(-1)!];
  return g.mul(a!, g.reshape(b!, row));
}

/** c · (a · b) with columns a and c and a row b is (c · a) · b: what is multiplied twice is a column. */
function scaledOuter(x: Tensor): Tensor | undefined {
  const [factor, product] = x.inputs;
  if (!isOp(x, "Mul") || !isOp(product!, "Mul")) return undefined;
  const [a, b] = product.inputs;
  const isOuter = a!.shape.at(-1) === 1 && b!.shape.at(-2) === 1;
  return isOuter && sameShape(factor!.shape, a!.shape) ? g.mul(g.mul(factor!, a!), b!) : undefined;
}

/** Sums over axes with others between them, one after another: CUDA's kernel for both at once takes ten times as long. */
function sumApart(x: Tensor): Tensor | undefined {
  if (!isOp(x, "ReduceSum")) return undefined;
  const { shape } = x.inputs[0]!;
  const axes = x.attributes.axes.filter((axis) => shape[axis] !== 1).toSorted((a, b) => a - b);
  const apart = axes.findIndex(
    (axis, i) => i > 0 && shape.slice(axes[i - 1]! + 1, axis).some((dim) => dim !== 1),
  );
  const inner = (part: Tensor) => g.reduceSum(part, axes.slice(apart));
  return apart > 0 ? g.reduceSum(inner(x.inputs[0]!), axes.slice(0, apart)) : undefined;
}

/**
 * Σⱼ (a vᵀ)ᵢⱼ pᵢⱼ = aᵢ · (p v)ᵢ: of the attention's backward pass rows instead of squares, p v being there. In F32 alone:
 * what rounding has in common in a row of a vᵀ would no longer cancel.
 */
function rowDots(x: Tensor): Tensor | undefined {
  const [square] = x.inputs;
  if (!isOp(x, "ReduceSum") || x.attributes.axes.join() !== String(x.shape.length - 1))
    return undefined;
  const [product, weights] = square!.inputs;
  if (!isOp(square!, "Mul") || !isOp(product!, "MatMul") || !isOp(weights!, "Softmax"))
    return undefined;
  const [a, v] = product.inputs;
  const { transposeA, transposeB, alpha } = product.attributes;
  if (transposeA || !transposeB || alpha !== 1) return undefined;
  return g.reduceSum(g.mul(a!, g.matMul(weights, v!)), [-1]);
}

/**
 * [B, T, D] as [B · T, D] from the first product with a matrix on, so that products are of matrices: they transpose and
 * add a bias as they multiply.
 */
function inRows(x: Tensor): Tensor | undefined {
  if (x.shape.length !== 3 || x.inputs.length === 0) return undefined;
  const [batch, length] = fixedShape(x.shape);
  const flat = (y: Tensor) =>
    y.shape.length === 3 ? g.reshape(y, [batch! * length!, y.shape[2]!]) : y;
  if (isOp(x, "MatMul")) {
    const isByMatrix = x.inputs[1]!.shape.length === 2 && !x.attributes.transposeA;
    return isByMatrix
      ? g.reshape(node("MatMul", x.inputs.map(flat), x.attributes), x.shape)
      : undefined;
  }
  const isLifted = (y: Tensor) => isOp(y, "Reshape") && y.inputs[0]!.shape.length === 2;
  const isFull = ({ shape }: Tensor) => shape[0] === batch && shape[1] === length;
  const isByRow = x.inputs.every((y) => (y.shape.length === 3 ? isFull(y) : y.shape.length < 2));
  const isAcrossRows = "axes" in x.attributes && x.attributes.axes.some((axis) => axis < 2);
  const isLiftable = isByRow && x.inputs.some(isLifted) && !isAcrossRows && !isOp(x, "Slice");
  return isLiftable ? lifted(x, x.inputs.map(flat), -1) : undefined;
}

/** What is computed by rows or along an axis, of operands that lie in another number of axes. */
function lifted(x: Tensor, inputs: readonly Tensor[], more: number): Tensor | undefined {
  const { attributes } = x;
  const rowwise = ops[x.op].isRowwise ? attributes : undefined;
  const moved =
    "axes" in attributes ? { axes: attributes.axes.map((axis) => axis + more) } : rowwise;
  const there = "start" in attributes ? { ...attributes, axis: attributes.axis + more } : moved;
  return there && g.reshape(node(x.op, inputs, there), x.shape);
}

const HEADS_FIRST = [0, 2, 1, 3];
const isHeadsFirst = (x: Tensor): x is Tensor<"Transpose"> =>
  isOp(x, "Transpose") && sameShape(x.attributes.permutation, HEADS_FIRST);
const unshaped = (x: Tensor): Tensor => (isOp(x, "Reshape") ? unshaped(x.inputs[0]!) : x);

/** Heads of a part of a row are a part of the heads of the row. */
function headsOfAll(x: Tensor): Tensor | undefined {
  if (!isHeadsFirst(x)) return undefined;
  const [batch, length, , width] = fixedShape(x.inputs[0]!.shape);
  const part = unshaped(x.inputs[0]!);
  if (!isOp(part, "Slice") || part.attributes.axis !== part.shape.length - 1) return undefined;
  const [{ start, end }, row] = [part.attributes, part.inputs[0]!];
  const rowWidth = Number(row.shape.at(-1));
  const isWhole = [start, end, rowWidth].every((at) => Number.isInteger(at / width!));
  if (!isWhole || sizeOf(row.shape) !== batch! * length! * rowWidth) return undefined;
  const heads = g.reshape(row, [batch!, length!, rowWidth / width!, width!]);
  return g.slice(g.transpose(heads, HEADS_FIRST), 1, start / width!, end / width!);
}

/** The other way round: rows joined of heads are the heads' join as rows. */
function joinedHeads(x: Tensor): Tensor | undefined {
  if (!isOp(x, "Concat") || x.attributes.axis !== x.shape.length - 1) return undefined;
  const parts = x.inputs.map(unshaped);
  const isRows = ({ shape }: Tensor, i: number) =>
    Number(shape.at(-1)) * Number(shape.at(-2)) === x.inputs[i]!.shape.at(-1);
  if (!parts.every(isHeadsFirst) || !parts.every(isRows)) return undefined;
  const sources = parts.map((part) => part.inputs[0]!);
  const heads = g.concat(sources, 1);
  return g.reshape(g.transpose(heads, HEADS_FIRST), x.shape);
}

/** What is done after leading axes of length 1 are dropped, before they are; rows stay matrices. */
function afterOnes(x: Tensor): Tensor | undefined {
  const wide = (y: Tensor): Tensor => {
    if (!isOp(y, "Reshape") || y.shape.length < 3) return y;
    const source = y.inputs[0]!;
    const ones = source.shape.slice(0, Math.max(0, source.shape.length - y.shape.length));
    const isDrop = sameShape(source.shape, [...ones.map(() => 1), ...y.shape]);
    return isDrop ? source : y;
  };
  const inputs = x.inputs.map(wide);
  if (inputs.every((y, i) => y === x.inputs[i])) return undefined;
  return lifted(x, inputs, inputs[0]!.shape.length - x.inputs[0]!.shape.length);
}

/** What is done to one part of tensors is that part of what is done to them whole, which serves the other parts. */
function ofWholes(x: Tensor): Tensor | undefined {
  const parts = x.inputs.filter(({ shape }) => shape.length > 0);
  const [first] = parts;
  if (!ops[x.op].isRowwise || !first || !isOp(first, "Slice")) return undefined;
  const { axis, start, end } = first.attributes;
  const whole = first.inputs[0]!.shape;
  const isAlike = (y: Tensor) =>
    isOp(y, "Slice") &&
    y.attributes.axis === axis &&
    y.attributes.start === start &&
    sameShape(y.shape, first.shape) &&
    sameShape(y.inputs[0]!.shape, whole);
  const isWorthIt = axis < whole.length - 1 && 2 * (end - start) >= Number(whole[axis]);
  if (!isWorthIt || !parts.every(isAlike)) return undefined;
  const inputs = x.inputs.map((y) => (parts.includes(y) ? y.inputs[0]! : y));
  return g.slice(node(x.op, inputs, x.attributes), axis, start, end);
}

/** A product of matrices and the row that is added to it. Of the product itself nothing else is made. */
function withRow(x: Tensor): Tensor | undefined {
  const [product, row] = x.inputs;
  if (!isOp(x, "Add") || !isOp(product!, "MatMul")) return undefined;
  const isPlain =
    sameShape(row!.shape, [product.shape.at(-1)!]) &&
    product.inputs.length === 2 &&
    product.inputs.every(({ shape }) => shape.length === 2);
  return isPlain ? node("MatMul", [...product.inputs, row!], product.attributes) : undefined;
}

/** Parts joined to what they are the parts of. */
function whole(x: Tensor): Tensor | undefined {
  const from = x.inputs[0]?.inputs[0];
  if (!isOp(x, "Concat") || !from || !sameShape(x.shape, from.shape)) return undefined;
  let at = 0;
  for (const part of x.inputs) {
    if (!isOp(part, "Slice") || part.inputs[0] !== from) return undefined;
    const { axis, start, end } = part.attributes;
    if (axis !== x.attributes.axis || start !== at) return undefined;
    at = end;
  }
  return from;
}
