// Reverse-mode differentiation: one sweep over the forward nodes builds the backward pass as further nodes.

import { invariant } from "../core/errors.ts";
import { fixedShape, sameShape, sizeOf } from "../core/shape.ts";
import { add, after, concat, expand, pad, reduceSum, reshape, scalar, slice } from "./build.ts";
import type { Operands, OpType } from "./ops.ts";
import { mapNodes } from "./passes.ts";
import { isOp, node, type Tensor, topologicalOrder } from "./tensor.ts";
import { type Vjp, vjps } from "./vjps.ts";

/**
 * Gradients of the sum of y's elements with respect to each of `wrt`, in order and of the same shapes.
 * Nodes that none of `wrt` reaches are not visited; what no gradient needs is never reached from the results.
 * The backward pass may find in memory the tensors `kept` of the forward pass, which come first to last; what lies
 * between them is computed again. Without any, everything is held. What is made of one of `stages` is computed again
 * after what the stage behind it gave is added up, so that one stage is in memory at a time.
 */
export function gradients(
  y: Tensor,
  wrt: readonly Tensor[],
  kept: readonly Tensor[] = [],
  stages: ReadonlySet<Tensor> = new Set(),
) {
  const order = topologicalOrder([y]);
  const targets = new Set(wrt);
  const active = new Set<Tensor>();
  for (const tensor of order)
    if (targets.has(tensor) || tensor.inputs.some((x) => active.has(x))) active.add(tensor);
  for (const target of wrt) invariant(active.has(target), `${target.op} does not reach the output`);

  const stageOf = stagesOf(order, stages);
  const again = recomputation(order, kept, stageOf);
  /** What the stage behind each gave, and the present one. */
  const before = new Map<Tensor, readonly Tensor[]>();
  let [behind, present]: Tensor[][] = [[], []];
  const contributions = new Map([[y, new Sum([expand(scalar(1), y.shape)])]]);
  const cotangents = new Map<Tensor, Tensor>();
  for (const tensor of order.toReversed()) {
    const terms = contributions.get(tensor);
    if (!terms || !active.has(tensor)) continue;
    const dy = terms.total();
    cotangents.set(tensor, dy);
    if (tensor.inputs.length === 0) continue;
    const rule = vjps[tensor.op] as Vjp<OpType>;
    const values: readonly Tensor[] = tensor.inputs.map((x) => again(x, dy, tensor));
    const value = again(tensor, dy, tensor);
    const grads = rule(dy, value, values as Operands<Tensor>, tensor.attributes);
    invariant(grads.length === tensor.inputs.length, `${tensor.op}: ${grads.length} gradients`);
    tensor.inputs.forEach((x, i) => {
      if (!active.has(x) || x.dtype === "BOOL") return; // conditions are constant almost everywhere
      const grad = grads[i];
      invariant(grad, `${tensor.op} has no gradient for input ${i}`);
      const sum = contributions.get(x) ?? new Sum();
      const changed = sum.add(unbroadcast(grad, x));
      const leaves = stageOf.has(tensor) && !stageOf.has(x) && !isOp(x, "Slice");
      if (leaves || isOp(tensor, "Slice")) present!.push(...changed);
      contributions.set(x, sum);
    });
    if (!stages.has(tensor)) continue;
    before.set(value, behind!);
    [behind, present] = [present, []];
  }
  const results = wrt.map((target, i) => {
    const gradient = cotangents.get(target);
    invariant(gradient, `the output has no gradient for input ${i}`);
    return gradient;
  });
  if (before.size === 0) return results;
  const inTurn = mapNodes(
    Object.fromEntries(results.entries()),
    (x, _, given) => after(x, ...given),
    (x) => before.get(x) ?? [],
  );
  return Object.values(inTurn);
}

interface Stretch {
  readonly part: Tensor;
  readonly start: number;
  readonly end: number;
}

/**
 * The sum of contributions to one cotangent, which are of one shape. Gradients of slices come padded with zeros to the
 * whole; instead of padding and adding, their parts are added where they overlap, as they come, and joined.
 */
export class Sum {
  readonly #terms: Tensor[] = [];
  #plain: Tensor | undefined;
  /** By axis: in order, without overlap. */
  readonly #stretches = new Map<number, readonly Stretch[]>();

  constructor(terms: readonly Tensor[] = []) {
    for (const term of terms) this.add(term);
  }

  /** Gives what has changed. */
  add(term: Tensor): readonly Tensor[] {
    this.#terms.push(term);
    if (!isOp(term, "Pad")) {
      this.#plain = this.#plain ? add(this.#plain, term) : term;
      return [this.#plain];
    }
    const { axis, before: start } = term.attributes;
    const [part] = term.inputs;
    const end = start + fixedShape(part!.shape)[axis]!;
    const known = this.#stretches.get(axis) ?? [];
    const overlapping = known.filter((of) => of.start < end && start < of.end);
    const changed = overlaid([...overlapping, { part: part!, start, end }], axis);
    const others = known.filter((of) => !overlapping.includes(of));
    const all = [...others, ...changed].toSorted((a, b) => a.start - b.start);
    this.#stretches.set(axis, all);
    return changed.map((of) => of.part);
  }

  total(): Tensor {
    const whole = [...this.#terms];
    for (const [axis, stretches] of this.#stretches) {
      const parts = whole.filter((term) => isOp(term, "Pad") && term.attributes.axis === axis);
      const hasHole = stretches.some(({ end }, i) => end < (stretches[i + 1]?.start ?? end));
      if (parts.length === 1 || hasHole) continue;
      for (const part of parts) whole.splice(whole.indexOf(part), 1);
      const joined = stretches.map(({ part }) => part);
      const length = fixedShape(parts[0]!.shape)[axis]!;
      const [first, last] = [stretches[0]!, stretches.at(-1)!];
      whole.push(pad(concat(joined, axis), axis, first.start, length - last.end));
    }
    return whole.reduce(add);
  }
}

/** The sums of parts of an axis, cut where one of them begins or ends. */
function overlaid(parts: readonly Stretch[], axis: number): Stretch[] {
  const bounds = new Set(parts.flatMap(({ start, end }) => [start, end]));
  const cuts = [...bounds].toSorted((a, b) => a - b);
  return cuts.slice(0, -1).flatMap((start, i) => {
    const end = cuts[i + 1]!;
    const covering = parts.filter((of) => of.start <= start && end <= of.end);
    const pieces = covering.map((of) => slice(of.part, axis, start - of.start, end - of.start));
    return pieces.length === 0 ? [] : [{ part: pieces.reduce(add), start, end }];
  });
}

/** Sums a gradient over the axes along which its tensor was broadcast. */
function unbroadcast(grad: Tensor, like: Tensor): Tensor {
  if (sameShape(grad.shape, like.shape)) return grad;
  const extra = grad.shape.length - like.shape.length;
  const axes = grad.shape.flatMap((dim, i) =>
    i < extra || (like.shape[i - extra] === 1 && dim !== 1) ? [i] : [],
  );
  const summed = reduceSum(grad, axes);
  invariant(sizeOf(summed.shape) === sizeOf(like.shape), `${like.op}: gradient of another size`);
  return reshape(summed, fixedShape(like.shape));
}

/** The stage of what is made of one alone. */
function stagesOf(order: readonly Tensor[], stages: ReadonlySet<Tensor>) {
  const stageOf = new Map<Tensor, Tensor>();
  for (const tensor of stages.size > 0 ? order : []) {
    const found = stages.has(tensor)
      ? [tensor]
      : tensor.inputs.flatMap((x) => stageOf.get(x) ?? []);
    if (new Set(found).size === 1) stageOf.set(tensor, found[0]!);
  }
  return stageOf;
}

/**
 * Activation recomputation: gives the tensor whose value may stand for `tensor` in the gradient of `user`, made of kept
 * ones after the cotangent `dy` that asks for it. `order` is the forward pass, inputs before users, and `kept` some of it,
 * in that order. What depends on none of them (parameters, tables) or on the last (the loss) is not computed again. A
 * stage has values of its own: others need what it gave before its turn comes, as a norm behind a feed-forward layer does.
 */
function recomputation(
  order: readonly Tensor[],
  kept: readonly Tensor[],
  stageOf: ReadonlyMap<Tensor, Tensor>,
) {
  const last = kept.at(-1);
  const keptSet = new Set(kept);
  const follows = new Set<Tensor>();
  const isLoss = new Set<Tensor>();
  for (const tensor of order) {
    if (keptSet.has(tensor) || tensor.inputs.some((x) => follows.has(x))) follows.add(tensor);
    if (tensor === last || tensor.inputs.some((x) => isLoss.has(x))) isLoss.add(tensor);
  }

  const [shared, own] = [new Map<Tensor, Tensor>(), new Map<Tensor, Tensor>()];
  const compute = (tensor: Tensor, dy: Tensor, stage: Tensor | undefined): Tensor => {
    if (!follows.has(tensor) || isLoss.has(tensor)) return tensor;
    const copies = stage && stageOf.get(tensor) === stage ? own : shared;
    let copy = copies.get(tensor);
    if (!copy) {
      const inputs = () => tensor.inputs.map((x) => compute(x, dy, stage));
      copy = keptSet.has(tensor) ? after(tensor, dy) : node(tensor.op, inputs(), tensor.attributes);
      copies.set(tensor, copy);
    }
    return copy;
  };
  return (tensor: Tensor, dy: Tensor, user: Tensor): Tensor =>
    keptSet.has(tensor) ? tensor : compute(tensor, dy, stageOf.get(user));
}
