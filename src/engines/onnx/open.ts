// Shapes that only the run knows. ONNX Runtime plans which value lies where another of the same shape lay, and keeps the
// place from the first to the last of them (FindReusableTensor in its allocation_planner.cc): of attention's blocks, which
// each see another number of keys, every layer's lie in the same places, forward and backward, and all places stay. For
// what has no shape before the run it plans nothing, and frees it when it is used up.

import { type Dim, fixedShape, type Shape } from "../../core/shape.ts";
import { isOp, type Tensor } from "../../graph/tensor.ts";
import type { Lowering } from "./lowering.ts";

/** Shorter parts take little. */
const LEAST = 512;

/** The length of parts that differ in length: of keys and values, [B, K, S, H], and of the places and masks of as many. */
function ownLength(x: Tensor): Dim | undefined {
  if (!isOp(x, "Slice") && !isOp(x, "Pad")) return undefined;
  const axis = isOp(x, "Pad") ? { 2: 1 } : { 1: 0, 4: 2 };
  const length = x.shape[x.attributes.axis]!;
  const isPart = axis[x.shape.length as keyof typeof axis] === x.attributes.axis;
  return isPart && Number(length) >= LEAST ? length : undefined;
}

/** Lowers a tensor by its rule so that its shape, and that of all that is as long, is known to the run alone. */
export function opened(
  context: Lowering,
  x: Tensor,
  inputs: readonly string[],
  lower: (inputs: readonly string[]) => string,
): string {
  const from = x.inputs.find((y) => context.open.has(y));
  const length = ownLength(x) ?? (from && context.open.get(from));
  if (!context.target.opensShapes || length === undefined) return lower(inputs);
  if (!x.shape.includes(length))
    return context.emit("Reshape", [lower(inputs), fixedShape(x.shape)]);
  context.open.set(x, length);
  if (isOp(x, "Reshape")) return withoutShape(context, inputs[0]!, x.shape);
  if (from) return lower(inputs);
  return lower([withoutShape(context, inputs[0]!, x.inputs[0]!.shape), ...inputs.slice(1)]);
}

/** The same bytes; not even how many axes the shape has is known: the integers that say it end where an id times zero says. */
function withoutShape(context: Lowering, x: string, shape: Shape): string {
  const shared = (op: string, inputs: Parameters<Lowering["shared"]>[1]) =>
    context.shared(op, inputs)[0];
  const first = shared("Slice", [shared("Reshape", [context.anyIds, [-1]]), [0], [1], [0]]);
  const rank = shared("Add", [shared("Mul", [first, [0]]), [shape.length]]);
  return shared("Reshape", [x, shared("Slice", [fixedShape(shape), [0], rank])]);
}
