// Equal chains of ops on several parts of one tensor (temperatures of query and value) as one chain: their operands are
// joined along the axis of the heads, the third from the end, which broadcasting aligns.

import { concat, slice } from "./build.ts";
import { ops } from "./ops.ts";
import { isOp, node, type Outputs, type Tensor, topologicalOrder } from "./tensor.ts";

const AXIS = -3;
type Group = readonly Tensor[];

/** The same values; the graph as it is where joined chains would wait for one another. */
export function stackTwins(outputs: Outputs): Outputs {
  const order = topologicalOrder(Object.values(outputs));
  const groups = twinsIn(order);
  const built = new Map<Tensor, Tensor>();
  const stacks = new Map<Group, Tensor>();

  const stackOf = (members: Group): Tensor => {
    const group = groups.get(members[0]!);
    const isGroup = group?.length === members.length && group.every((x, i) => x === members[i]);
    const stacked = isGroup ? stacks.get(group) : undefined;
    if (stacked) return stacked;
    const axis = members[0]!.shape.length + AXIS;
    return concat(
      members.map((x) => built.get(x)!),
      axis,
    );
  };
  const build = (tensor: Tensor): void => {
    const group = groups.get(tensor);
    if (!group || isOp(tensor, "Slice")) {
      const inputs = tensor.inputs.map((x) => built.get(x)!);
      const isSame = inputs.every((x, i) => x === tensor.inputs[i]);
      built.set(tensor, isSame ? tensor : node(tensor.op, inputs, tensor.attributes));
      return;
    }
    const inputs = tensor.inputs.map((x, i) =>
      isShared(group, i) ? built.get(x)! : stackOf(group.map(({ inputs }) => inputs[i]!)),
    );
    const stacked = node(tensor.op, inputs, tensor.attributes);
    stacks.set(group, stacked);
    const [axis, size] = [tensor.shape.length + AXIS, Number(tensor.shape.at(AXIS))];
    group.forEach((x, i) => built.set(x, slice(stacked, axis, i * size, (i + 1) * size)));
  };

  // What waits for a member of a group that comes later is left for the next round.
  let waiting = order;
  while (waiting.length > 0) {
    const isReady = (x: Tensor) => x.inputs.every((y) => built.has(y));
    const left: Tensor[] = [];
    for (const tensor of waiting)
      if (built.has(tensor)) continue;
      else if ((groups.get(tensor) ?? [tensor]).every(isReady)) build(tensor);
      else left.push(tensor);
    if (left.length === waiting.length) return outputs;
    waiting = left;
  }
  return Object.fromEntries(Object.entries(outputs).map(([name, x]) => [name, built.get(x)!]));
}

/**
 * Groups of equal nodes on members of one group, from slices of one tensor onwards; then those whose operands are joined
 * for another group anyhow.
 */
function twinsIn(order: readonly Tensor[]): ReadonlyMap<Tensor, Group> {
  const groups = new Map<Tensor, Group>();
  const ids = new Map<unknown, number>();
  const idOf = (x: unknown) => ids.get(x) ?? (ids.set(x, ids.size), ids.size - 1);
  let joined = new Map<Tensor, string>();
  const join = (members: Group) => {
    for (const x of members) joined.set(x, members.map(idOf).join("+"));
  };
  const add = (keyOf: (x: Tensor) => string | undefined): boolean => {
    const byKey = new Map<string, Tensor[]>();
    for (const tensor of order) {
      const key = groups.has(tensor) ? undefined : keyOf(tensor);
      if (key !== undefined) byKey.set(key, [...(byKey.get(key) ?? []), tensor]);
    }
    const isJoined = ([first, ...others]: Group) =>
      joined.has(first!) && others.every((x) => joined.get(x) === joined.get(first!));
    const found = [...byKey.values()].filter((group) => canStack(group, isJoined));
    for (const group of found) {
      for (const member of group) groups.set(member, group);
      join(group);
    }
    return found.length > 0;
  };
  add((x) =>
    isOp(x, "Slice") && x.attributes.axis === x.shape.length + AXIS
      ? `${idOf(x.inputs[0])} ${x.shape.join()}`
      : undefined,
  );
  const keyOf = (x: Tensor) =>
    x.inputs.some((y) => joined.has(y))
      ? [
          x.op,
          JSON.stringify(x.attributes),
          ...x.inputs.map((y) =>
            isOp(y, "Constant") ? `=${idOf(y)}` : (joined.get(y) ?? y.shape.join()),
          ),
        ].join(" ")
      : undefined;
  while (add(keyOf));
  joined = new Map();
  for (const group of new Set(groups.values()))
    if (!isOp(group[0]!, "Slice"))
      for (const i of group[0]!.inputs.keys())
        if (!isShared(group, i)) join(group.map(({ inputs }) => inputs[i]!));
  add((x) => (x.inputs.every((y) => joined.has(y)) ? keyOf(x) : undefined));
  return groups;
}

/** Whether all nodes of a group have this operand in common, and it broadcasts over the axis. */
function isShared(group: Group, i: number): boolean {
  const [first, ...others] = group.map(({ inputs }) => inputs[i]!) as [Tensor, ...Tensor[]];
  const size = first.shape.at(AXIS);
  return others.every((x) => x === first) && (size === undefined || size === 1);
}

/** Several nodes, each with its own of some joined operands, and none that would broadcast over the longer axis. */
function canStack(group: Group, isJoined: (members: Group) => boolean): boolean {
  const [first] = group as [Tensor];
  if (group.length === 1) return false;
  if (isOp(first, "Slice")) return true;
  const [size, rank] = [first.shape.at(AXIS), first.shape.length];
  const isReduction = isOp(first, "ReduceSum") || isOp(first, "ReduceMean");
  if (isReduction && first.attributes.axes.includes(rank + AXIS)) return false;
  if (!isReduction && !isOp(first, "MatMul") && !ops[first.op].isRowwise) return false;
  const operands = first.inputs.map((_, i) => group.map(({ inputs }) => inputs[i]!));
  const isOwn = (members: Group) => new Set(members).size === group.length && isJoined(members);
  return (
    size !== undefined &&
    operands.some(isOwn) &&
    operands.every((members, i) => isShared(group, i) || members[0]!.shape.at(AXIS) === size)
  );
}
