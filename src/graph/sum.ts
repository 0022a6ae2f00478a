// The sum of several contributions to one cotangent. Gradients of slices come padded with zeros to the whole; instead
// of padding and adding, their parts are added where they overlap and joined.

import { fixedShape } from "../core/shape.ts";
import { add, concat, pad, slice } from "./build.ts";
import { isOp, type Tensor } from "./tensor.ts";

/** One tensor that equals the sum of `terms`, which are of one shape. */
export function sumOf(terms: readonly Tensor[]): Tensor {
  const whole = [...terms];
  const padded = terms.filter((term) => isOp(term, "Pad"));
  const axes = new Set(padded.map(({ attributes }) => attributes.axis));
  for (const axis of axes) {
    const parts = padded.filter(({ attributes }) => attributes.axis === axis);
    const joined = parts.length > 1 ? join(parts, axis) : undefined;
    if (!joined) continue;
    for (const part of parts) whole.splice(whole.indexOf(part), 1);
    whole.push(joined);
  }
  return whole.reduce(add);
}

/** The sum of tensors padded along one axis; undefined where they leave a hole between them. */
function join(padded: readonly Tensor<"Pad">[], axis: number): Tensor | undefined {
  const parts = padded.map(({ inputs: [part], attributes: { before } }) => ({
    part: part!,
    start: before,
    end: before + fixedShape(part!.shape)[axis]!,
  }));
  const cuts = [...new Set(parts.flatMap(({ start, end }) => [start, end]))].toSorted(
    (a, b) => a - b,
  );
  const stretches: Tensor[] = [];
  for (const [i, from] of cuts.slice(0, -1).entries()) {
    const to = cuts[i + 1]!;
    const covering = parts.filter(({ start, end }) => start <= from && to <= end);
    if (covering.length === 0) return undefined;
    const pieces = covering.map(({ part, start }) => slice(part, axis, from - start, to - start));
    stretches.push(pieces.reduce(add));
  }
  const length = fixedShape(padded[0]!.shape)[axis]!;
  return pad(concat(stretches, axis), axis, cuts[0]!, length - cuts.at(-1)!);
}
