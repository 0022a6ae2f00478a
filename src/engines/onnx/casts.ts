// Weights stored in half precision and used in F32. Cast at load, or all at the start of a run, they would lie in
// memory twice over; here each use casts its own, when it comes to it.

import { DTYPE_BYTES } from "../../core/dtype.ts";
import { fixedShape, type Shape, sizeOf } from "../../core/shape.ts";
import { isOp, type Tensor } from "../../graph/tensor.ts";
import { ONNX_TYPES } from "./model.ts";
import type { Lowering } from "./lowering.ts";

/** Whether a tensor is a stored matrix in another number format, and as such cast where it is used. */
export function isLateCast({ target }: Lowering, tensor: Tensor): tensor is Tensor<"Cast"> {
  return (
    target.castBytes !== undefined &&
    isOp(tensor, "Cast") &&
    tensor.shape.length > 1 &&
    isOp(tensor.inputs[0]!, "Parameter")
  );
}

/** The names of a node's operands; a product casts its matrix once its other operand is there. */
export function operandsOf(context: Lowering, { op, inputs }: Tensor): string[] {
  return inputs.map((x, i) => {
    if (!isLateCast(context, x)) return context.nameOf(x);
    const stored = context.nameOf(x.inputs[0]!);
    if (op === "Gather") return stored;
    const other = inputs[1 - i];
    return op === "MatMul" && other && !isLateCast(context, other)
      ? context.cast(delayed(context, stored, x.shape, context.nameOf(other)), x.dtype)
      : context.shared("Cast", [stored], ["Cast"], { to: ONNX_TYPES[x.dtype] })[0];
  });
}

/**
 * The product with a matrix too large to be cast at once, by parts of the matrix's rows: side by side where it is
 * transposed, else summed. Undefined where the matrix is cast whole or not at all.
 */
export function productByParts(
  context: Lowering,
  { inputs: [x, matrix], attributes: { transposeA, transposeB } }: Tensor<"MatMul">,
  product: (x: string, part: string) => string,
): string | undefined {
  if (transposeA || !isLateCast(context, matrix!) || isLateCast(context, x!)) return undefined;
  const numParts = Math.ceil(
    (sizeOf(matrix.shape) * DTYPE_BYTES[matrix.dtype]) / context.target.castBytes!,
  );
  if (numParts === 1) return undefined;
  const [rows] = fixedShape(matrix.shape) as [number];
  const rowsOfPart = Math.ceil(rows / numParts);
  const left = context.nameOf(x!);
  const stored = delayed(context, context.nameOf(matrix.inputs[0]!), matrix.shape, left);
  const parts: string[] = [];
  for (let start = 0; start < rows; start += rowsOfPart) {
    const end = Math.min(start + rowsOfPart, rows);
    const part = context.cast(context.slice(stored, 0, start, end), matrix.dtype);
    parts.push(product(transposeB ? left : context.slice(left, -1, start, end), part));
  }
  return transposeB
    ? context.emit("Concat", parts, { axis: -1 })
    : parts.reduce((sum, part) => context.emit("Add", [sum, part]));
}

/** Rows of a table; of a stored one, only they are cast. */
export function gather(context: Lowering, table: Tensor, operands: readonly string[]): string {
  const rows = context.emit("Gather", operands, { axis: 0 });
  return isLateCast(context, table) ? context.cast(rows, table.dtype) : rows;
}

/**
 * The weight reshaped to its own shape plus a zero made of an activation's first value. That computes nothing, but
 * neither constant folding nor the scheduler can have the result before that value.
 */
function delayed(context: Lowering, weight: string, shape: Shape, activation: string): string {
  const [flat] = context.shared("Reshape", [activation, [-1]]);
  const [first] = context.shared("Slice", [flat, [0], [1]]);
  const [integer] = context.shared("Cast", [first], ["Cast"], { to: ONNX_TYPES.I64 });
  const [zero] = context.shared("Mul", [integer, [0]]);
  const [dims] = context.shared("Add", [fixedShape(shape), zero]);
  return context.emit("Reshape", [weight, dims]);
}
