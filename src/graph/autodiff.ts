// Reverse-mode differentiation: one sweep over the forward nodes builds the backward pass as further nodes.

import { invariant } from "../core/errors.ts";
import { fixedShape, sameShape, sizeOf } from "../core/shape.ts";
import { add, after, concat, expand, pad, reduceSum, reshape, scalar, slice } from "./build.ts";
import type { Operands, OpType } from "./ops.ts";
import { isOp, node, type Tensor, topologicalOrder } from "./tensor.ts";
import { type Vjp, vjps } from "./vjps.ts";

/**
 * Gradients of the sum of y's elements with respect to each of `wrt`, in order and of the same shapes.
 * Nodes that none of `wrt` reaches are not visited; what no gradient needs is never reached from the results.
 * The backward pass may find in memory the tensors `kept` of the forward pass, which come first to last; what lies
 * between them is computed again. Without any, everything is held.
 */
export function gradients(y: Tensor, wrt: readonly Tensor[], kept: readonly Tensor[] = []) {
  const order = topologicalOrder([y]);
  const targets = new Set(wrt);
  const active = new Set<Tensor>();
  for (const tensor of order)
    if (targets.has(tensor) || tensor.inputs.some((x) => active.has(x))) active.add(tensor);
  for (const target of wrt) invariant(active.has(target), `${target.op} does not reach the output`);

  const again = recomputation(order, kept);
  const contributions = new Map<Tensor, Tensor[]>([[y, [expand(scalar(1), y.shape)]]]);
  const cotangents = new Map<Tensor, Tensor>();
  for (const tensor of order.toReversed()) {
    const terms = contributions.get(tensor);
    if (!terms || !active.has(tensor)) continue;
    const dy = sumOf(terms);
    cotangents.set(tensor, dy);
    if (tensor.inputs.length === 0) continue;
    const rule = vjps[tensor.op] as Vjp<OpType>;
    const values: readonly Tensor[] = tensor.inputs.map((x) => again(x, dy));
    const grads = rule(dy, again(tensor, dy), values as Operands<Tensor>, tensor.attributes);
    invariant(grads.length === tensor.inputs.length, `${tensor.op}: ${grads.length} gradients`);
    tensor.inputs.forEach((x, i) => {
      if (!active.has(x) || x.dtype === "BOOL") return; // conditions are constant almost everywhere
      const grad = grads[i];
      invariant(grad, `${tensor.op} has no gradient for input ${i}`);
      const sum = contributions.get(x) ?? [];
      contributions.set(x, [...sum, unbroadcast(grad, x)]);
    });
  }
  return wrt.map((target, i) => {
    const gradient = cotangents.get(target);
    invariant(gradient, `the output has no gradient for input ${i}`);
    return gradient;
  });
}

/**
 * One tensor that equals the sum of `terms`, the contributions to one cotangent, which are of one shape. Gradients of
 * slices come padded with zeros to the whole; instead of padding and adding, their parts are added where they overlap and
 * joined.
 */
export function sumOf(terms: readonly Tensor[]): Tensor {
  const whole = [...terms];
  const padded = terms.filter((term) => isOp(term, "Pad"));
  const axes = new Set(padded.map(({ attributes }) => attributes.axis));
  for (const axis of axes) {
    const parts = padded.filter(({ attributes }) => attributes.axis === axis);
    const joined = parts.length > 1 ? join(parts, axis) : undefined;
    if (!joined) continue;
    for (const part of parts) whole.splice(whole.indexOf(part), 1);
    whole.push(joined);
  }
  return whole.reduce(add);
}

/** The sum of tensors padded along one axis; undefined where they leave a hole between them. */
function join(padded: readonly Tensor<"Pad">[], axis: number): Tensor | undefined {
  const parts = padded.map(({ inputs: [part], attributes: { before } }) => ({
    part: part!,
    start: before,
    end: before + fixedShape(part!.shape)[axis]!,
  }));
  const cuts = [...new Set(parts.flatMap(({ start, end }) => [start, end]))].toSorted(
    (a, b) => a - b,
  );
  const stretches: Tensor[] = [];
  for (const [i, from] of cuts.slice(0, -1).entries()) {
    const to = cuts[i + 1]!;
    const covering = parts.filter(({ start, end }) => start <= from && to <= end);
    if (covering.length === 0) return undefined;
    const pieces = covering.map(({ part, start }) => slice(part, axis, from - start, to - start));
    stretches.push(pieces.reduce(add));
  }
  const length = fixedShape(padded[0]!.shape)[axis]!;
  return pad(concat(stretches, axis), axis, cuts[0]!, length - cuts.at(-1)!);
}

/** Sums a gradient over the axes along which its tensor was broadcast. */
function unbroadcast(grad: Tensor, like: Tensor): Tensor {
  if (sameShape(grad.shape, like.shape)) return grad;
  const extra = grad.shape.length - like.shape.length;
  const axes = grad.shape.flatMap((dim, i) =>
    i < extra || (like.shape[i - extra] === 1 && dim !== 1) ? [i] : [],
  );
  const summed = reduceSum(grad, axes);
  invariant(sizeOf(summed.shape) === sizeOf(like.shape), `${like.op}: gradient of another size`);
  return reshape(summed, fixedShape(like.shape));
}

/**
 * Activation recomputation: gives the tensor whose value may stand for `tensor` in a gradient, made of kept ones
 * after the cotangent `dy` that asks for it. `order` is the forward pass, inputs before users, and `kept` some of it, in
 * that order. What depends on none of them (parameters, tables) or on the last (the loss) is not computed again.
 */
function recomputation(order: readonly Tensor[], kept: readonly Tensor[]) {
  const last = kept.at(-1);
  const keptSet = new Set(kept);
  const follows = new Set<Tensor>();
  const isLoss = new Set<Tensor>();
  for (const tensor of order) {
    if (keptSet.has(tensor) || tensor.inputs.some((x) => follows.has(x))) follows.add(tensor);
    if (tensor === last || tensor.inputs.some((x) => isLoss.has(x))) isLoss.add(tensor);
  }

  const again = new Map<Tensor, Tensor>();
  const compute = (tensor: Tensor, dy: Tensor): Tensor => {
    if (!follows.has(tensor) || isLoss.has(tensor)) return tensor;
    let copy = again.get(tensor);
    if (!copy) {
      const inputs = () => tensor.inputs.map((x) => compute(x, dy));
      copy = keptSet.has(tensor) ? after(tensor, dy) : node(tensor.op, inputs(), tensor.attributes);
      again.set(tensor, copy);
    }
    return copy;
  };
  return (tensor: Tensor, dy: Tensor): Tensor =>
    keptSet.has(tensor) ? tensor : compute(tensor, dy);
}
