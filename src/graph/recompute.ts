// Activation recomputation: between two kept tensors nothing of the forward pass outlives it; the sweep computes a
// stretch again, from the tensor kept at its start, once the cotangent at its end is known.

import { add, cast, scale, slice } from "./build.ts";
import { node, type Tensor } from "./tensor.ts";

/** Gives the tensor whose value the backward pass of `of` may use in place of `tensor`, computed after `dy`. */
export type Recompute = (tensor: Tensor, of: Tensor, dy: Tensor) => Tensor;

/**
 * `order` is the forward pass, inputs before users, and `kept` some of its tensors in that order. What depends on one
 * of them but not on the next is computed again; what follows the last or precedes the first is not.
 */
export function recomputation(order: readonly Tensor[], kept: readonly Tensor[]): Recompute {
  // A stretch is numbered by the kept tensor it starts from; a kept tensor's own value starts the next one.
  const starts = new Map(kept.map((tensor, i) => [tensor, i]));
  const producedIn = new Map<Tensor, number>();
  const stretchOf = (tensor: Tensor) => starts.get(tensor) ?? producedIn.get(tensor)!;
  for (const tensor of order) producedIn.set(tensor, Math.max(-1, ...tensor.inputs.map(stretchOf)));

  const again = new Map<Tensor, Tensor>();
  const compute = (tensor: Tensor, stretch: number): Tensor => {
    const known = again.get(tensor);
    if (known) return known;
    if (starts.has(tensor) || producedIn.get(tensor) !== stretch) return tensor;
    const copy = node(
      tensor.op,
      tensor.inputs.map((x) => compute(x, stretch)),
      tensor.attributes,
    );
    again.set(tensor, copy);
    return copy;
  };
  return (tensor, of, dy) => {
    const stretch = producedIn.get(of)!;
    const start = kept[stretch];
    if (!start || stretch === kept.length - 1) return tensor;
    if (!again.has(start)) again.set(start, after(start, dy));
    // The end of a stretch is kept: as a value it is at hand, though it is produced here.
    return compute(tensor, stretch);
  };
}

/**
 * x + 0 · dy[0, ..]: the same value, but no scheduler can have it before dy, and no merging of equal
 * subexpressions can take what is made of it for what was made of x.
 */
function after(x: Tensor, dy: Tensor): Tensor {
  const first = dy.shape.reduce<Tensor>((part, _, axis) => slice(part, axis, 0, 1), dy);
  return add(x, scale(cast(first, x.dtype), 0));
}
