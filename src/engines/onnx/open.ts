// Shapes that only the run knows. ONNX Runtime plans which value lies where another of the same shape lay, and keeps the
// place from the first to the last of them (FindReusableTensor in its allocation_planner.cc): of attention's blocks, which
// each see another number of keys, every layer's lie in the same places, forward and backward, and all places stay. For
// what has no shape before the run it plans nothing, and frees it when it is used up.

import { type Dim, fixedShape, type Shape } from "../../core/shape.ts";
import { isOp, type Tensor } from "../../graph/tensor.ts";
import type { Lowering } from "./lowering.ts";
import { ONNX_TYPES } from "./model.ts";

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

/**
 * The same bytes, once an input of integers or another tensor `from` is there: neither constant folding nor the scheduler
 * can have the shape before a zero that is made of its first value. Not even how many axes there are is known: the planner
 * compares whatever has a shape with all that it has seen so far.
 */
export function withoutShape(context: Lowering, x: string, shape: Shape, from?: string): string {
  const shared = (...of: Parameters<Lowering["shared"]>) => context.shared(...of)[0];
  const flat = shared("Reshape", [from ?? context.anyIds, [-1]]);
  const first = shared("Slice", [flat, [0], [1], [0]]);
  const integer = from ? shared("Cast", [first], ["Cast"], { to: ONNX_TYPES.I64 }) : first;
  const zero = shared("Mul", [integer, [0]]);
  const dims = shared("Slice", [fixedShape(shape), [0], shared("Add", [zero, [shape.length]])]);
  return shared("Reshape", [x, dims]);
}
