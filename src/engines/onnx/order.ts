// The order of a model's nodes. ONNX Runtime starts from the output whose node stands last in the model, walks back
// from it, and of a node's operands first computes the one that stands last.

import { type Outputs, type Tensor, topologicalOrder } from "../../graph/tensor.ts";

/**
 * By depth, so that of two operands the deeper one, the cotangent, comes last in the model and first in the run: what
 * its partner needs from the forward pass is then computed when it is used, and not held until the cotangent is there.
 * Outputs come at the end, as they are listed: gradients of the last layers are done before those of the first.
 */
export function orderOf(outputs: Outputs): Tensor[] {
  const order = topologicalOrder(Object.values(outputs));
  const depths = new Map<Tensor, number>();
  for (const tensor of order)
    depths.set(tensor, 1 + Math.max(0, ...tensor.inputs.map((x) => depths.get(x)!)));
  const ends = endsOf(outputs, order);
  const inner = order.filter((tensor) => !ends.has(tensor));
  return [...inner.toSorted((a, b) => depths.get(a)! - depths.get(b)!), ...ends];
}

/** The same nodes in the order in which ONNX Runtime computes them. */
export function runOrderOf(outputs: Outputs): Tensor[] {
  const order = orderOf(outputs);
  const places = new Map(order.map((tensor, place) => [tensor, place]));
  const lastFirst = (tensors: Iterable<Tensor>) =>
    [...tensors].toSorted((a, b) => places.get(b)! - places.get(a)!);
  return topologicalOrder(lastFirst(endsOf(outputs, order)), ({ inputs }) => lastFirst(inputs));
}

/** Outputs that no other node uses, in their order. */
function endsOf(outputs: Outputs, order: readonly Tensor[]): Set<Tensor> {
  const used = new Set(order.flatMap(({ inputs }) => inputs));
  return new Set(Object.values(outputs).filter((tensor) => !used.has(tensor)));
}
