// Half precision as a GPU's kernels want it: between two that compute in F32 inside, what lies in memory is of half the
// size. Rows of the rewrite table in launches.ts.

import { sameShape, sizeOf } from "../core/shape.ts";
import * as g from "./build.ts";
import { isOp, node, type Tensor } from "./tensor.ts";

/** What a tensor in F32 was widened from. */
function narrowOf(x: Tensor | undefined): Tensor | undefined {
  const [source] = x?.inputs ?? [];
  const isWidened = x && isOp(x, "Cast") && x.dtype === "F32";
  return isWidened && (source!.dtype === "BF16" || source!.dtype === "F16") ? source : undefined;
}

/** The join of widened parts is the widened join. */
export function wideJoin(x: Tensor): Tensor | undefined {
  if (!isOp(x, "Concat")) return undefined;
  const parts = x.inputs.map(narrowOf);
  const isWhole = parts.every((part) => part !== undefined);
  return isWhole ? g.cast(g.concat(parts, x.attributes.axis), "F32") : undefined;
}

/** softmax(z + mask) of a product z, whose digits half precision has already; in F16 small probabilities of many lack them. */
export function narrowSoftmax(x: Tensor): Tensor | undefined {
  const [z] = x.inputs;
  if (!isOp(x, "Softmax")) return undefined;
  const all = narrowOf(z);
  if (all?.dtype === "BF16") return g.cast(g.softmax(all), "F32");
  const seen = isOp(z!, "Add") ? narrowOf(z.inputs[0]) : undefined;
  if (!seen) return undefined;
  const mask = g.cast(z!.inputs[1]!, seen.dtype);
  // Flat, a mask that all heads share is one row, for which addition has a faster kernel.
  const isShared = seen.dtype === "BF16" && mask.shape.length === 2;
  const flat = isShared
    ? [sizeOf(seen.shape) / sizeOf(mask.shape), sizeOf(mask.shape)]
    : seen.shape;
  const sum = g.add(g.reshape(seen, flat), isShared ? g.reshape(mask, flat.slice(1)) : mask);
  return g.cast(g.softmax(g.reshape(sum, seen.shape)), "F32");
}

/** (c · p) W with a column c is c · (p W), which has fewer columns than p. */
export function columnAfter(x: Tensor): Tensor | undefined {
  if (!isOp(x, "MatMul") || x.attributes.transposeA || x.inputs.length > 2) return undefined;
  const [left, matrix] = x.inputs as [Tensor, Tensor];
  const scaled = isOp(left, "Cast") ? left.inputs[0]! : left;
  const [column, wide] = scaled.inputs;
  if (!isOp(scaled, "Mul") || column!.shape.at(-1) !== 1) return undefined;
  const p = narrowOf(wide) ?? wide!;
  const isSmaller = Number(x.shape.at(-1)) < Number(p.shape.at(-1));
  if (!isSmaller || p.dtype !== matrix.dtype || !sameShape(p.shape, scaled.shape)) return undefined;
  const product = node("MatMul", [p, matrix], x.attributes);
  return g.cast(g.mul(column!, g.cast(product, "F32")), x.dtype);
}

/** Columns by which a product of halves stays aligned for tensor cores. */
const ALIGNED = 8;

/**
 * The softmax's backward pass, p · (a vᵀ - d) with d = Σⱼ p (a vᵀ)ⱼ = a · (p v): d is subtracted where the product adds
 * up in F32, as [a, d] [v, -1]ᵀ, since after rounding it would no longer cancel. In two halves it has 16 digits or more.
 */
export function narrowRowDots(x: Tensor): Tensor | undefined {
  const [p, centered] = x.inputs;
  const weights = narrowOf(p);
  if (!isOp(x, "Mul") || !weights || !isOp(weights, "Softmax") || !isOp(centered!, "Sub"))
    return undefined;
  const [square, sum] = centered.inputs;
  const terms = isOp(sum!, "ReduceSum") ? sum.inputs[0] : undefined;
  if (!terms || !isOp(terms, "Mul") || terms.inputs[0] !== square || terms.inputs[1] !== p)
    return undefined;
  const shaped = narrowOf(square);
  const product = shaped && isOp(shaped, "Reshape") ? shaped.inputs[0]! : shaped;
  if (!product || !isOp(product, "MatMul") || product.attributes.alpha !== 1) return undefined;
  const { transposeA, transposeB } = product.attributes;
  if (transposeA || !transposeB) return undefined;
  const [a, v] = product.inputs as [Tensor, Tensor];
  const { dtype } = a;
  const grouped = g.reshape(weights, product.shape);
  const wide = (y: Tensor) => g.cast(y, "F32");
  const d = g.reduceSum(g.mul(wide(a), wide(g.matMul(grouped, v))), [-1]);
  const high = g.cast(d, dtype);
  const low = g.cast(g.sub(d, wide(high)), dtype);
  const columns = (value: number, of: Tensor, width: number) =>
    g.cast(g.expand(g.scalar(value), [...of.shape.slice(0, -1), width]), dtype);
  const left = g.concat([a, high, low, columns(0, a, ALIGNED - 2)], -1);
  const right = g.concat([v, columns(-1, v, ALIGNED)], -1);
  const narrow = g.mul(grouped, g.matMul(left, right, { transposeB: true }));
  return wide(g.reshape(narrow, x.shape));
}
