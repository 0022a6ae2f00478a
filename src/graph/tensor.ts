// Symbolic tensors. A graph is what its outputs reach: nodes are immutable, each gives one tensor,
// so code that nothing uses is simply not there.

import { invariant } from "../core/errors.ts";
import { formatShape } from "../core/shape.ts";
import { type OpAttributes, type OpType, resultOf, type Tensor } from "./ops.ts";

export type { Tensor } from "./ops.ts";

/** Named outputs; inputs and parameters are the leaves that they reach. */
export type Outputs = Readonly<Record<string, Tensor>>;

/** Adds a node; its shape and dtype follow from the op's rule. */
export function node<Op extends OpType>(
  op: Op,
  inputs: readonly Tensor[],
  attributes: OpAttributes[Op],
): Tensor<Op> {
  try {
    return { op, inputs, attributes, ...resultOf(op, inputs, attributes) };
  } catch (cause) {
    const operands = inputs.map(({ dtype, shape }) => dtype + formatShape(shape)).join(", ");
    throw new Error(`internal: ${op}(${operands}): ${(cause as Error).message}`, { cause });
  }
}

export function isOp<Op extends OpType>(tensor: Tensor, op: Op): tensor is Tensor<Op> {
  return tensor.op === op;
}

/**
 * Every node that the roots reach, inputs before users, in the order in which `inputsOf` lists them; iterative, since
 * graphs are thousands of nodes deep.
 */
export function topologicalOrder(
  roots: Iterable<Tensor>,
  inputsOf: (tensor: Tensor) => readonly Tensor[] = ({ inputs }) => inputs,
): Tensor[] {
  const order: Tensor[] = [];
  const seen = new Set<Tensor>();
  const stack: { readonly tensor: Tensor; readonly inputs: Iterator<Tensor> }[] = [];
  const enter = (tensor: Tensor) => {
    if (seen.has(tensor)) return;
    seen.add(tensor);
    stack.push({ tensor, inputs: inputsOf(tensor).values() });
  };
  for (const root of roots) {
    enter(root);
    for (let top = stack.at(-1); top; top = stack.at(-1)) {
      const next = top.inputs.next();
      if (next.done) order.push(stack.pop()!.tensor);
      else enter(next.value);
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

/** Nodes in an order in which inputs come first, each with the places of its own: what another process can be sent. */
export function flattened(outputs: Outputs) {
  const order = topologicalOrder(Object.values(outputs));
  const places = new Map(order.map((tensor, i) => [tensor, i]));
  const placesOf = (tensors: readonly Tensor[]) => tensors.map((tensor) => places.get(tensor)!);
  const nodes = order.map((tensor) => ({ ...tensor, inputs: placesOf(tensor.inputs) }));
  return { nodes, names: Object.keys(outputs), roots: placesOf(Object.values(outputs)) };
}

/** The graph that was flattened. */
export function rebuilt({ nodes, names, roots }: ReturnType<typeof flattened>): Outputs {
  const tensors: Tensor[] = [];
  for (const node of nodes)
    tensors.push({ ...node, inputs: node.inputs.map((place) => tensors[place]!) });
  return Object.fromEntries(names.map((name, i) => [name, tensors[roots[i]!]!]));
}
