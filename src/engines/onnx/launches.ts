// Nodes that do the work of several, for providers on which every node is the launch of a kernel.

import { fixedShape } from "../../core/shape.ts";
import { isOp, type Outputs, type Tensor, topologicalOrder } from "../../graph/tensor.ts";
import type { Lowering } from "./lowering.ts";

/**
 * What another node's kernel computes as well: products of two matrices of which nothing is used but their sum with a bias,
 * and slices that together are all equal parts of a tensor.
 */
export function mergeable(outputs: Outputs): ReadonlySet<Tensor> {
  const order = topologicalOrder(Object.values(outputs));
  const uses = new Map<Tensor, number>();
  const slices = new Map<Tensor, Tensor<"Slice">[]>();
  for (const x of [...order.flatMap(({ inputs }) => inputs), ...Object.values(outputs)])
    uses.set(x, (uses.get(x) ?? 0) + 1);
  const merged = new Set<Tensor>();
  for (const x of order) {
    const [from, bias] = x.inputs;
    if (
      isOp(x, "Add") &&
      bias!.shape.length === 1 &&
      isMatrixProduct(from!) &&
      uses.get(from!) === 1
    )
      merged.add(from!);
    if (isOp(x, "Slice") && x.dtype !== "I64") slices.set(from!, [...(slices.get(from!) ?? []), x]);
  }
  for (const [whole, parts] of slices) {
    const { axis } = parts[0]!.attributes;
    const count = fixedShape(whole.shape)[axis]! / fixedShape(parts[0]!.shape)[axis]!;
    const isPart = (x: Tensor<"Slice">) => {
      const { axis: along, start, end } = x.attributes;
      return along === axis && start % (end - start) === 0 && end - start === sizeOfPart;
    };
    const sizeOfPart = fixedShape(parts[0]!.shape)[axis]!;
    if (parts.length === count && parts.every(isPart)) for (const part of parts) merged.add(part);
  }
  return merged;
}

const isMatrixProduct = (x: Tensor) =>
  isOp(x, "MatMul") && x.inputs.every(({ shape }) => shape.length === 2);

/** What gives a tensor that is merged, or the sum that takes one in; undefined for all others. */
export function mergedNode(
  context: Lowering,
  tensor: Tensor,
  merged: ReadonlySet<Tensor>,
): string | undefined {
  if (isOp(tensor, "Slice") && merged.has(tensor)) return partOf(context, tensor);
  const [product] = tensor.inputs;
  return isOp(tensor, "Add") && merged.has(product!) && isOp(product!, "MatMul")
    ? biasedProduct(context, product, tensor.inputs[1]!)
    : undefined;
}

function biasedProduct(context: Lowering, product: Tensor<"MatMul">, bias: Tensor): string {
  const { transposeA, transposeB, alpha } = product.attributes;
  const operands = [...product.inputs, bias].map((x) => context.nameOf(x));
  const attributes = { transA: Number(transposeA), transB: Number(transposeB) };
  return context.emit("Gemm", operands, { ...attributes, alpha: { float: alpha } });
}

/** One output of the node that gives all parts. */
function partOf(context: Lowering, { inputs, attributes }: Tensor<"Slice">): string {
  const { axis, start, end } = attributes;
  const [whole] = inputs as [Tensor];
  const count = fixedShape(whole.shape)[axis]! / (end - start);
  const outputs = Array.from({ length: count }, () => "part");
  const split = { axis, num_outputs: count };
  return context.shared("Split", [context.nameOf(whole)], outputs, split)[start / (end - start)]!;
}
