// Passes over whole graphs: merging equal subexpressions with a few identities, and verification.

import { DTYPE_BYTES } from "../core/dtype.ts";
import { sameShape } from "../core/shape.ts";
import { invariant } from "../core/errors.ts";
import { resultOf } from "./ops.ts";
import { isOp, leaves, node, type Outputs, type Tensor, topologicalOrder } from "./tensor.ts";

/**
 * The same outputs with equal subexpressions computed once and identities removed (reshapes of reshapes,
 * of equal shape, ...). Bit for bit the same values; what the outputs do not reach is gone.
 */
export function simplify(outputs: Outputs): Outputs {
  const ids = new Map<Tensor, number>();
  const byKey = new Map<string, Tensor>();
  const dataIds = new Map<unknown, number>();

  const intern = (tensor: Tensor): Tensor => {
    const key = `${tensor.op}(${tensor.inputs.map((x) => ids.get(x)).join(",")})${attributesKey(tensor, dataIds)}`;
    const known = byKey.get(key);
    if (known) return known;
    byKey.set(key, tensor);
    ids.set(tensor, ids.size);
    return tensor;
  };

  return mapNodes(outputs, (tensor) => {
    const identity = identityOf(tensor);
    // An identity may yield a node that is not interned yet (a merged reshape).
    return identity && ids.has(identity) ? identity : intern(identity ?? tensor);
  });
}

/**
 * The graph with every node replaced, inputs before users; `change` gets the node with its new inputs, and as it was. And
 * what replaces others that come before it, as `earlier` says.
 */
export function mapNodes(
  outputs: Outputs,
  change: (tensor: Tensor, original: Tensor, before: readonly Tensor[]) => Tensor,
  earlier: (tensor: Tensor) => readonly Tensor[] = () => [],
) {
  const replaced = new Map<Tensor, Tensor>();
  const anewOf = (tensors: readonly Tensor[]) => tensors.map((x) => replaced.get(x)!);
  const ahead = (tensor: Tensor) => [...tensor.inputs, ...earlier(tensor)];
  for (const tensor of topologicalOrder(Object.values(outputs), ahead)) {
    const inputs = anewOf(tensor.inputs);
    const same = inputs.every((x, i) => x === tensor.inputs[i]);
    const anew = same ? tensor : node(tensor.op, inputs, tensor.attributes);
    replaced.set(tensor, change(anew, tensor, anewOf(earlier(tensor))));
  }
  return Object.fromEntries(Object.entries(outputs).map(([name, t]) => [name, replaced.get(t)!]));
}

/** The input that a node merely repeats, or a simpler node for it; undefined if it does work. */
function identityOf(tensor: Tensor): Tensor | undefined {
  const [x, factor] = tensor.inputs;
  if (!x) return undefined;
  const { op, shape } = tensor;
  const isSame = sameShape(x.shape, shape);
  // A sum over axes of length 1 is its one term.
  if (isSame && ["Reshape", "Expand", "ReduceSum"].includes(op)) return x;
  if (isOp(tensor, "Reshape") && isOp(x, "Reshape")) {
    const [source] = x.inputs;
    if (sameShape(source!.shape, shape)) return source;
    if (shape.every((dim) => typeof dim === "number"))
      return node("Reshape", [source!], tensor.attributes);
  }
  if (isOp(tensor, "Transpose") && tensor.attributes.permutation.every((axis, i) => axis === i))
    return x;
  if (isOp(tensor, "Cast") && isOp(x, "Cast") && x.inputs[0]!.dtype === tensor.dtype)
    return DTYPE_BYTES[x.dtype] > DTYPE_BYTES[tensor.dtype] ? x.inputs[0] : undefined;
  // A cotangent of one: 1 · x and x · 1 occur at the root of every backward pass.
  if (op === "Mul" && isOne(x) && sameShape(factor!.shape, shape)) return factor;
  if (op === "Mul" && isOne(factor!) && isSame) return x;
  return undefined;
}

function isOne(tensor: Tensor): boolean {
  if (isOp(tensor, "Expand")) return isOne(tensor.inputs[0]!);
  return isOp(tensor, "Constant") && tensor.shape.length === 0 && tensor.attributes.data[0] === 1;
}

function attributesKey(tensor: Tensor, dataIds: Map<unknown, number>): string {
  if (!isOp(tensor, "Constant")) return JSON.stringify(tensor.attributes);
  const { data, shape } = tensor.attributes;
  // Small constants are equal by value, tables only if they are the same array.
  if (data.length <= 64) return `${tensor.dtype}[${shape.join()}]${[...data].map(exactly).join()}`;
  if (!dataIds.has(data)) dataIds.set(data, dataIds.size);
  return `table ${dataIds.get(data)}[${shape.join()}]`;
}

const exactly = (value: number | bigint) => (Object.is(value, -0) ? "-0" : String(value));

/** Checks every node against its op's rule and the leaves' names for uniqueness; throws `internal:` if broken. */
export function verify(outputs: Outputs): void {
  for (const tensor of topologicalOrder(Object.values(outputs))) {
    const { shape, dtype } = resultOf(tensor.op, tensor.inputs, tensor.attributes);
    const isSound = sameShape(shape, tensor.shape) && dtype === tensor.dtype;
    invariant(isSound, `${tensor.op} is mislabelled`);
  }
  leaves(outputs, "Input");
  leaves(outputs, "Parameter");
}
