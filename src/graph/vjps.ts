// The gradient table: for each op, the vector-Jacobian product of every input, as ordinary nodes.
// dy is the cotangent of the output y. Broadcasting is undone by the sweep (autodiff.ts), not here.
// null: the input has no gradient (integers, conditions, constant tables).

import { fixedShape, sameShape, sizeOf } from "../core/shape.ts";
import * as g from "./build.ts";
import { each, type OpAttributes, type Operands, type OpType } from "./ops.ts";
import { isOp, node, type Tensor } from "./tensor.ts";

export type Vjp<Op extends OpType> = (
  dy: Tensor,
  y: Tensor,
  inputs: Operands<Tensor>,
  attributes: OpAttributes[Op],
) => readonly (Tensor | null)[];

const one = (like: Tensor) => g.cast(g.scalar(1), like.dtype);

export const vjps: { readonly [Op in OpType]: Vjp<Op> } = {
  ...each(["Input", "Parameter", "Constant"], () => () => []),
  Add: (dy) => [dy, dy],
  Sub: (dy) => [dy, g.neg(dy)],
  Mul: (dy, _, [a, b]) => [g.mul(dy, b), g.mul(dy, a)],
  Neg: (dy) => [g.neg(dy)],
  Exp: (dy, y) => [g.mul(dy, y)],
  Tanh: (dy, y) => [g.mul(dy, g.sub(one(y), g.mul(y, y)))], // 1 - tanh²
  Sigmoid: (dy, y) => [g.mul(dy, g.mul(y, g.sub(one(y), y)))], // σ (1 - σ)
  Erf: (dy, _, [x]) => [
    g.mul(dy, g.scale(g.exp(g.neg(g.mul(x, x))), 2 / Math.sqrt(Math.PI))), // 2/√π e^-x²
  ],
  Gelu: (dy, _, [x], { approximate }) => {
    // Powers of x overflow F16; BF16 has the range, and no x that was widened from it has more digits.
    const source = isOp(x, "Cast") && x.inputs[0]!.dtype === "BF16" ? x.inputs[0]! : x;
    const from = source.dtype === "F16" ? g.cast(source, "F32") : source;
    const slope = approximate === "tanh" ? geluTanhSlope(from) : geluSlope(from);
    return [g.mul(dy, g.cast(slope, dy.dtype))];
  },
  Cast: (dy, _, [x]) => [x.dtype === "I64" || x.dtype === "BOOL" ? null : g.cast(dy, x.dtype)],
  ...each(["LessOrEqual", "And"], () => () => [null, null]),
  Dequantize: (_, __, parts) => parts.map(() => null),
  Where: (dy, _, [condition]) => {
    const zero = g.cast(g.scalar(0), dy.dtype);
    return [null, g.where(condition, dy, zero), g.where(condition, zero, dy)];
  },
  MatMul: (dy, _, [a, b, ...row], { transposeA, transposeB, alpha }) => {
    // Rows scaled before the product are rows scaled after it, which may be much shorter (the loss's vocabulary).
    const [factor, rows] = rowScaled(dy);
    const product = (rows: Tensor) => g.matMul(rows, b, { transposeB: !transposeB, alpha });
    const da = transposeA
      ? g.matMul(b, dy, { transposeA: transposeB, transposeB: true, alpha })
      : factor
        ? g.mul(factor, product(rows))
        : product(dy);
    // A matrix shared by a batch sums over the batch: one product of the flattened operands.
    const shared = !transposeA && b.shape.length === 2;
    const [left, right] = shared ? [flatten(a), flatten(dy)] : [a, dy];
    const db = transposeB
      ? g.matMul(right, left, { transposeA: true, transposeB: transposeA, alpha })
      : g.matMul(left, right, { transposeA: !transposeA, alpha });
    return [da, db, ...row.map(() => dy)];
  },
  ReduceSum: (dy, _, [x]) => [g.expand(dy, x.shape)],
  ReduceMean: (dy, y, [x]) => [g.expand(g.scale(dy, sizeOf(y.shape) / sizeOf(x.shape)), x.shape)],
  // After y, which is made of x and its softmax as well: neither need wait for the end of the run.
  LogSumExp: (dy, y, [x]) => [g.mul(g.after(dy, y), g.softmax(x))],
  Softmax: (dy, y) => [g.mul(y, g.sub(dy, g.reduceSum(g.mul(dy, y), [-1])))],
  LayerNorm: (dy, _, inputs, attributes) => {
    const [x, weight] = inputs;
    const mean = node("LayerNormMean", inputs, attributes);
    const invStd = node("LayerNormInvStd", inputs, attributes);
    const xHat = g.mul(g.sub(x, mean), invStd);
    const dxHat = g.mul(dy, weight);
    // invStd (dx̂ - mean(dx̂) - x̂ mean(dx̂ x̂))
    const centered = g.sub(dxHat, meanLast(dxHat));
    const dx = g.mul(invStd, g.sub(centered, g.mul(xHat, meanLast(g.mul(dxHat, xHat)))));
    return [dx, g.mul(dy, xHat), dy];
  },
  LayerNormMean: (dy, _, [x]) => [g.expand(g.scale(dy, 1 / width(x)), x.shape), null, null],
  LayerNormInvStd: (dy, y, inputs, attributes) => {
    const [x] = inputs;
    const mean = node("LayerNormMean", inputs, attributes);
    return [g.mul(g.scale(g.mul(dy, cube(y)), -1 / width(x)), g.sub(x, mean)), null, null];
  },
  RmsNorm: (dy, _, [x, weight], attributes) => {
    const invStd = node("RmsNormInvStd", [x, weight], attributes);
    const xHat = g.mul(x, invStd);
    const dxHat = g.mul(dy, weight);
    const dx = g.mul(invStd, g.sub(dxHat, g.mul(xHat, meanLast(g.mul(dxHat, xHat)))));
    return [dx, g.mul(dy, xHat)];
  },
  RmsNormInvStd: (dy, y, [x]) => [g.mul(g.scale(g.mul(dy, cube(y)), -1 / width(x)), x), null],
  Rotary: (dy, _, [, cos, sin]) => [g.rotary(dy, cos, g.neg(sin)), null, null], // a rotation's transpose
  Reshape: (dy, _, [x]) => [g.reshape(dy, x.shape)],
  Transpose: (dy, _, __, { permutation }) => {
    const back = permutation.map((_, i) => permutation.indexOf(i));
    return [g.transpose(dy, back)];
  },
  Expand: (dy) => [dy],
  Slice: (dy, _, [x], { axis, start, end }) => [
    g.pad(dy, axis, start, fixedShape(x.shape)[axis]! - end),
  ],
  Pad: (dy, _, [x], { axis, before }) => [
    g.slice(dy, axis, before, before + fixedShape(x.shape)[axis]!),
  ],
  Concat: (dy, _, parts, { axis }) => {
    let start = 0;
    return parts.map((part) => {
      const from = start;
      start += fixedShape(part.shape)[axis]!;
      return g.slice(dy, axis, from, start);
    });
  },
  Gather: (dy, _, [table, indices]) => [
    g.scatterAdd(indices, dy, fixedShape(table.shape)[0]!),
    null,
  ],
  ScatterAdd: (dy, _, [indices]) => [null, g.gather(dy, indices)],
  CumSum: () => [null],
};

const width = (x: Tensor) => fixedShape(x.shape).at(-1)!;
const cube = (x: Tensor) => g.mul(x, g.mul(x, x));
const meanLast = (x: Tensor) => g.scale(g.reduceSum(x, [-1]), 1 / width(x));

/** Φ(x) + x φ(x) */
function geluSlope(x: Tensor): Tensor {
  const cdf = g.scale(g.add(g.erf(g.scale(x, Math.SQRT1_2)), one(x)), 0.5);
  const density = g.scale(g.exp(g.scale(g.mul(x, x), -0.5)), 1 / Math.sqrt(2 * Math.PI));
  return g.add(cdf, g.mul(x, density));
}

/**
 * gelu_tanh(x) = x s with s = σ(u), u = 2√(2/π) (x + 0.044715 x³), so its slope is s (1 + (1 - s) x u')
 * with u' = 2√(2/π) (1 + 3 · 0.044715 x²). Of x alone, so that the value need not be held.
 */
function geluTanhSlope(x: Tensor): Tensor {
  const k = 2 * Math.sqrt(2 / Math.PI);
  const squared = g.mul(x, x);
  const odd = (a: number) => g.mul(x, g.add(g.scale(squared, a * k), g.cast(g.scalar(k), x.dtype)));
  const s = g.sigmoid(odd(0.044715));
  return g.mul(s, g.add(one(x), g.mul(g.sub(one(x), s), odd(3 * 0.044715))));
}

/** x as one factor per row times the rest, where it is such a product. */
function rowScaled(x: Tensor): readonly [Tensor | undefined, Tensor] {
  const [factor, rest] = x.inputs;
  const isScaled =
    x.op === "Mul" &&
    factor!.shape.length === x.shape.length &&
    factor!.shape.at(-1) === 1 &&
    sameShape(rest!.shape, x.shape);
  return isScaled ? [factor, rest!] : [undefined, x];
}

/** [.., n] as [rows, n] */
function flatten(x: Tensor): Tensor {
  if (x.shape.length === 2) return x;
  return g.reshape(x, [sizeOf(x.shape) / width(x), width(x)]);
}
