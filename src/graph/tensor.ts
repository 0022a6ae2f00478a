// Symbolic tensors. A graph is what its outputs reach: nodes are immutable, each gives one tensor,
// so code that nothing uses is simply not there.

import type { Dtype } from "../core/dtype.ts";
import { invariant } from "../core/errors.ts";
import { formatShape, type Shape } from "../core/shape.ts";
import { type OpAttributes, type OpType, ops } from "./ops.ts";

export interface Tensor<Op extends OpType = OpType> {
  readonly op: Op;
  readonly inputs: readonly Tensor[];
  readonly attributes: OpAttributes[Op];
  readonly shape: Shape;
  readonly dtype: Dtype;
}

/** Named outputs; inputs and parameters are the leaves that they reach. */
export type Outputs = Readonly<Record<string, Tensor>>;

/** Adds a node; its shape and dtype follow from the op's rule. */
export function node<Op extends OpType>(
  op: Op,
  inputs: readonly Tensor[],
  attributes: OpAttributes[Op],
): Tensor<Op> {
  try {
    const { shape, dtype } = ops[op].result(inputs, attributes);
    return { op, inputs, attributes, shape, dtype };
  } catch (cause) {
    const operands = inputs.map(({ dtype, shape }) => dtype + formatShape(shape)).join(", ");
    throw new Error(`internal: ${op}(${operands}): ${(cause as Error).message}`, { cause });
  }
}

export function isOp<Op extends OpType>(tensor: Tensor, op: Op): tensor is Tensor<Op> {
  return tensor.op === op;
}

/** Every node that the roots reach, inputs before users; iterative, since graphs are thousands of nodes deep. */
export function topologicalOrder(roots: Iterable<Tensor>): Tensor[] {
  const order: Tensor[] = [];
  const seen = new Set<Tensor>();
  const stack: { tensor: Tensor; next: number }[] = [];
  const enter = (tensor: Tensor) => {
    if (seen.has(tensor)) return;
    seen.add(tensor);
    stack.push({ tensor, next: 0 });
  };
  for (const root of roots) {
    enter(root);
    while (stack.length > 0) {
      const top = stack.at(-1)!;
      const input = top.tensor.inputs[top.next++];
      if (input) enter(input);
      else order.push(stack.pop()!.tensor);
    }
  }
  return order;
}

/** The leaves of one kind that the outputs reach, by name. */
export function leaves<Op extends "Input" | "Parameter">(outputs: Outputs, op: Op) {
  const found = new Map<string, Tensor<Op>>();
  for (const tensor of topologicalOrder(Object.values(outputs))) {
    if (!isOp(tensor, op)) continue;
    const { name } = tensor.attributes;
    invariant(!found.has(name), `two leaves named ${name}`);
    found.set(name, tensor);
  }
  return found;
}
