// The order of a model's nodes. ONNX Runtime walks back from its outputs and, of a node's operands, first computes the
// one that stands last in the model.

import { type Outputs, type Tensor, topologicalOrder } from "../graph/tensor.ts";

/**
 * By depth, so that of two operands the deeper one, the cotangent, comes last in the model and first in the run: what
 * its partner needs from the forward pass is then computed when it is used, and not held until the cotangent is there.
 */
export function orderOf(outputs: Outputs): Tensor[] {
  const order = topologicalOrder(Object.values(outputs));
  const depths = new Map<Tensor, number>();
  for (const tensor of order)
    depths.set(tensor, 1 + Math.max(0, ...tensor.inputs.map((x) => depths.get(x)!)));
  return order.toSorted((a, b) => depths.get(a)! - depths.get(b)!);
}
