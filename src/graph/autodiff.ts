// Reverse-mode differentiation: one sweep over the forward nodes builds the backward pass as further nodes.

import { invariant } from "../core/errors.ts";
import { fixedShape, sameShape, sizeOf } from "../core/shape.ts";
import { expand, reduceSum, reshape, scalar } from "./build.ts";
import type { OpAttributes, OpType } from "./ops.ts";
import { recomputation } from "./recompute.ts";
import { sumOf } from "./sum.ts";
import { type Tensor, topologicalOrder } from "./tensor.ts";
import { vjps } from "./vjps.ts";

export interface GradientOptions {
  /**
   * Tensors of the forward pass, first to last, that the backward pass may find in memory; what lies between them
   * is computed again. Without any, everything is held.
   */
  readonly kept?: readonly Tensor[];
}

/**
 * Gradients of the sum of y's elements with respect to each of `wrt`, in order and of the same shapes.
 * Nodes that none of `wrt` reaches are not visited; what no gradient needs is never reached from the results.
 */
export function gradients(
  y: Tensor,
  wrt: readonly Tensor[],
  { kept = [] }: GradientOptions = {},
): Tensor[] {
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
    const rule = vjps[tensor.op] as (
      ...operands: [Tensor, Tensor, readonly Tensor[], OpAttributes[OpType]]
    ) => readonly (Tensor | null)[];
    const values = tensor.inputs.map((x) => again(x, dy));
    const grads = rule(dy, again(tensor, dy), values, tensor.attributes);
    invariant(grads.length === tensor.inputs.length, `${tensor.op}: ${grads.length} gradients`);
    tensor.inputs.forEach((x, i) => {
      if (!active.has(x)) return;
      const grad = grads[i];
      invariant(grad, `${tensor.op} has no gradient for input ${i}`);
      const sum = contributions.get(x) ?? [];
      contributions.set(x, [...sum, unbroadcast(grad, x)]);
    });
  }
  return wrt.map((target) => cotangents.get(target)!);
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
