// Activation recomputation: only kept tensors of the forward pass wait for the backward pass. Whatever else a gradient
// needs is computed again from them, once the cotangent that asks for it is known.

import { after } from "./build.ts";
import { node, type Tensor } from "./tensor.ts";

/** Gives the tensor whose value may stand for `tensor` in a gradient, computed after the cotangent `dy`. */
export type Recompute = (tensor: Tensor, dy: Tensor) => Tensor;

/**
 * `order` is the forward pass, inputs before users, and `kept` some of its tensors in that order. What depends on
 * none of them (parameters, tables) or on the last (the loss) is not computed again.
 */
export function recomputation(order: readonly Tensor[], kept: readonly Tensor[]): Recompute {
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
  return (tensor, dy) => (keptSet.has(tensor) ? tensor : compute(tensor, dy));
}
