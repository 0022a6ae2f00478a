// Weights stored in half precision or as blocks of integers, and used in F32. Widened at load, or all at the start of a
// run, they would lie in memory twice over; here each use widens its own, when it comes to it.

import { type Dtype, DTYPE_BYTES } from "../../core/dtype.ts";
import { fixedShape, sizeOf } from "../../core/shape.ts";
import { isOp, type Tensor } from "../../graph/tensor.ts";
import { ONNX_TYPES } from "./model.ts";
import { isCodes, type Lowering } from "./lowering.ts";
import { withoutShape } from "./open.ts";

/** Whether a tensor is a stored matrix in another number format, and as such widened where it is used. */
export function isLateCast(
  { target }: Lowering,
  tensor: Tensor,
): tensor is Tensor<"Cast" | "Dequantize"> {
  // Blocks are a quarter of half precision or less: widened at load they would be of no use on any device.
  if (isOp(tensor, "Dequantize")) return tensor.inputs.every((x) => isOp(x, "Parameter"));
  return (
    target.castBytes !== undefined &&
    isOp(tensor, "Cast") &&
    tensor.shape.length > 1 &&
    isOp(tensor.inputs[0]!, "Parameter")
  );
}

/** The names of a node's operands; a product widens its matrix once its other operand is there. */
export function operandsOf(context: Lowering, { op, inputs }: Tensor): string[] {
  return inputs.map((x, i) => {
    if (!isLateCast(context, x)) return context.nameOf(x);
    if (op === "Gather") return context.nameOf(x.inputs[0]!);
    const other = inputs[1 - i];
    if (op === "MatMul" && other && !isLateCast(context, other))
      return rowsAfter(context, x, context.nameOf(other))();
    const stored = x.inputs.map((part) => context.nameOf(part));
    return isOp(x, "Dequantize")
      ? dequantized(context, x, stored)
      : context.shared("Cast", stored, ["Cast"], { to: ONNX_TYPES[x.dtype] })[0];
  });
}

/**
 * The product with a matrix too large to be widened at once, by parts of the matrix's rows: side by side where it is
 * transposed, else summed. Undefined where the matrix is widened whole or not at all.
 */
export function productByParts(
  context: Lowering,
  { inputs: [x, matrix], attributes: { transposeA, transposeB } }: Tensor<"MatMul">,
  product: (x: string, part: string) => string,
): string | undefined {
  if (transposeA || !isLateCast(context, matrix!) || isLateCast(context, x!)) return undefined;
  const { castBytes = Infinity } = context.target;
  const numParts = Math.ceil((sizeOf(matrix.shape) * DTYPE_BYTES[matrix.dtype]) / castBytes);
  if (numParts <= 1) return undefined;
  const [rows] = fixedShape(matrix.shape) as [number];
  const rowsOfPart = Math.ceil(rows / numParts);
  const left = context.nameOf(x!);
  const partOf = rowsAfter(context, matrix, left);
  const parts: string[] = [];
  for (let start = 0; start < rows; start += rowsOfPart) {
    const end = Math.min(start + rowsOfPart, rows);
    const part = partOf(start, end);
    parts.push(product(transposeB ? left : context.slice(left, -1, start, end), part));
  }
  return transposeB
    ? context.emit("Concat", parts, { axis: -1 })
    : parts.reduce((sum, part) => context.emit("Add", [sum, part]));
}

/** Whether a product with a matrix in blocks of this length is one node: MatMulNBits takes powers of 2 from 16 to 256. */
const isProductOfBlocks = ({ target }: Lowering, { shape, inputs }: Tensor): boolean =>
  target.productOfBlocks === true &&
  [16, 32, 64, 128, 256].includes(Number(shape.at(-1)) / Number(inputs[1]!.shape.at(-1)));

/** The product with a matrix in blocks as one node: the rows of the matrix are its outputs. */
export function productOfBlocks(
  context: Lowering,
  { inputs: [x, matrix, ...more], attributes: { transposeA, transposeB, alpha } }: Tensor<"MatMul">,
): string | undefined {
  const isPlain = transposeB && !transposeA && alpha === 1 && more.length === 0;
  if (!isOp(matrix!, "Dequantize") || !isPlain || !isLateCast(context, matrix)) return undefined;
  if (!isProductOfBlocks(context, matrix)) return undefined;
  const [codes, factors, shifts] = matrix.inputs as [Tensor<"Parameter">, Tensor, Tensor?];
  const [N, K] = fixedShape(matrix.shape) as [number, number];
  const [bits, numBlocks] = [codes.attributes.dtype === "U8" ? 4 : 8, Number(factors.shape.at(-1))];
  const floats = (of: Tensor) => {
    const stored = context.nameOf(of);
    return of.dtype === matrix.dtype ? stored : context.cast(stored, matrix.dtype);
  };
  const left = context.nameOf(x!);
  const operands = [left, context.offsetCodes(codes, numBlocks), floats(factors)];
  const hasBiases = shifts && !isCodes(shifts);
  if (shifts && !hasBiases) operands.push(context.offsetCodes(shifts));
  const form = { K, N, bits, block_size: K / numBlocks };
  const product = context.emit("com.microsoft.MatMulNBits", operands, form);
  if (!hasBiases) return product;
  // A block's bias meets the sum of what the block is multiplied with.
  const rows = Array<number>(x!.shape.length - 1).fill(0);
  const inBlocks = context.emit("Reshape", [left, [...rows, numBlocks, K / numBlocks]]);
  const sums = context.emit("ReduceSum", [inBlocks, [-1]], { keepdims: 0 });
  const biases = context.emit("Transpose", [floats(shifts)], { perm: [1, 0] });
  return context.emit("Add", [product, context.emit("MatMul", [sums, biases])]);
}

/** Rows of a table; of a stored one, only they are widened where the target can pick them. */
export function gather(context: Lowering, { inputs }: Tensor, operands: readonly string[]): string {
  const [table, ids] = inputs;
  const rowsOf = (x: string) => context.emit("Gather", [x, operands[1]!], { axis: 0 });
  if (!isLateCast(context, table!)) return rowsOf(operands[0]!);
  if (!isOp(table, "Dequantize")) return context.cast(rowsOf(operands[0]!), table.dtype);
  // Of one that is a product's matrix as well there is one copy, whose codes begin at 0.
  const isOffset = isProductOfBlocks(context, table) && table.inputs[0]!.dtype === "I8";
  const parts = table.inputs.map((part, i) =>
    isOffset && isCodes(part)
      ? context.offsetCodes(part, i === 0 ? Number(table.inputs[1]!.shape.at(-1)) : undefined)
      : context.nameOf(part),
  );
  if (isOffset)
    return dequantized(context, table, parts.map(rowsOf), {
      rank: ids!.shape.length + 1,
      isOffset,
    });
  if (!context.target.gathersCodes)
    return rowsOf(dequantized(context, table, parts, { after: operands[1]! }));
  return dequantized(context, table, parts.map(rowsOf), { rank: ids!.shape.length + 1 });
}

type DequantizeOptions = Readonly<{ rank?: number; after?: string; isOffset?: boolean }>;

/**
 * Codes times the factors of their blocks, as the matrix `of` has them, or rows of it in `rank` axes: zero points before,
 * biases after; once the value `after` is there. With `isOffset` codes and zero points begin at 0.
 */
export function dequantized(
  context: Lowering,
  of: Tensor,
  [codes, factors, shift]: readonly string[],
  { rank = 2, after, isOffset = false }: DequantizeOptions = {},
): string {
  const [integers, stored, shifts] = of.inputs;
  const block = Number(of.shape.at(-1)) / Number(stored!.shape.at(-1));
  // DequantizeLinear: no provider has it for bf16.
  const dtype = of.dtype === "BF16" ? "F32" : of.dtype;
  const floats = (x: string, from: Tensor) => (from.dtype === dtype ? x : context.cast(x, dtype));
  const result = (x: string) => (dtype === of.dtype ? x : context.cast(x, of.dtype));
  const late = (x: string, dtype: Dtype) => (after ? delayed(context, x, dtype, after) : x);
  const hasBiases = shifts && !isCodes(shifts);
  // A side of 0 is as it was.
  const rows = Array<number>(rank - 1).fill(0);
  const inBlocks = (x: string) => context.emit("Reshape", [x, [...rows, -1, block]]);
  const ofBlock = (x: string, from: Tensor) => context.emit("Unsqueeze", [floats(x, from), [-1]]);
  let blocks: string;
  if (isOffset || (integers!.dtype === "I8" && !context.target.blocksOfBytes)) {
    // Alone they would be widened once, at load, and kept.
    const all = late(context.below(Number(of.shape[0])), "I64");
    const here = after ? context.emit("Gather", [codes!, all], { axis: 0 }) : codes!;
    const numbers = inBlocks(context.cast(here, dtype));
    const half = isOffset ? context.scalar(128, dtype) : undefined;
    const zeros = shifts && !hasBiases ? ofBlock(shift!, shifts) : half;
    const shifted = zeros ? context.emit("Sub", [numbers, zeros]) : numbers;
    blocks = context.emit("Mul", [shifted, ofBlock(factors!, stored!)]);
  } else {
    const parts = [codes!, late(floats(factors!, stored!), dtype)];
    if (shifts && !hasBiases) parts.push(shift!);
    const scaled = context.emit("DequantizeLinear", parts, { axis: -1, block_size: block });
    if (!hasBiases) return result(scaled);
    blocks = inBlocks(scaled);
  }
  if (hasBiases) blocks = context.emit("Add", [blocks, ofBlock(shift!, shifts)]);
  return result(context.emit("Reshape", [blocks, [...rows, -1]]));
}

/** The same values, once an activation is there: to compute a shape from it, a device would wait for its host. */
function delayed(context: Lowering, x: string, dtype: Dtype, activation: string): string {
  const shared = (...of: Parameters<Lowering["shared"]>) => context.shared(...of)[0];
  const flat = shared("Reshape", [activation, [-1]]);
  const first = shared("Gather", [flat, context.integers([0], [1])], ["Gather"], { axis: 0 });
  const finite = shared("Cast", [first], ["Cast"], { to: ONNX_TYPES.I32 });
  const zero = shared("Mul", [finite, context.model.constant("I32", [], new Uint8Array(4))]);
  const same = shared("Cast", [zero], ["Cast"], { to: ONNX_TYPES[context.dtypeOf(dtype)] });
  return shared("Add", [x, same]);
}

/** Widens a stored matrix, or some of its rows, once an activation is there. */
function rowsAfter(context: Lowering, matrix: Tensor, activation: string) {
  const [stored, factors, shifts] = matrix.inputs as [Tensor<"Parameter">, Tensor?, Tensor?];
  // To delay the factors, which are small, delays their product with the codes.
  const small = factors ?? stored;
  const { opensShapes } = context.target;
  const name = context.nameOf(small);
  const late = opensShapes ? withoutShape(context, name, small.shape, activation) : name;
  const after = opensShapes ? {} : { after: activation };
  return (...part: readonly [] | readonly [start: number, end: number]) => {
    const rowsOf = (x: string) => (part.length === 0 ? x : context.slice(x, 0, ...part));
    if (!factors) return context.cast(rowsOf(late), matrix.dtype);
    const parts = [context.codes(stored, ...part), rowsOf(late)];
    if (shifts && isCodes(shifts)) parts.push(context.codes(shifts, ...part));
    else if (shifts) parts.push(rowsOf(context.nameOf(shifts)));
    return dequantized(context, matrix, parts, after);
  };
}
