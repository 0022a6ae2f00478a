// Shapes: a dimension is a number, or a name where an exported model leaves it open ("batch", "sequence").

import { invariant } from "./errors.ts";

export type Dim = number | string;
export type Shape = readonly Dim[];

/** The shape as numbers; named dimensions occur in exported inference graphs alone. */
export function fixedShape(shape: Shape): readonly number[] {
  invariant(
    shape.every((dim): dim is number => typeof dim === "number"),
    `${formatShape(shape)} has no fixed size`,
  );
  return shape;
}

/** Number of elements of a fixed shape. */
export const sizeOf = (shape: Shape) =>
  fixedShape(shape).reduce((product, dim) => product * dim, 1);

export const sameShape = (a: Shape, b: Shape) =>
  a.length === b.length && a.every((dim, i) => dim === b[i]);

/** Counts negative axes from the end. */
export function normalizeAxis(axis: number, rank: number): number {
  invariant(axis >= -rank && axis < rank, `axis ${axis} of rank ${rank}`);
  return axis < 0 ? axis + rank : axis;
}

/** NumPy broadcasting; a named dimension matches itself and 1. */
export function broadcastShapes(a: Shape, b: Shape): Shape {
  const rank = Math.max(a.length, b.length);
  return Array.from({ length: rank }, (_, i) => {
    const x = a[i - rank + a.length] ?? 1;
    const y = b[i - rank + b.length] ?? 1;
    invariant(x === y || x === 1 || y === 1, `${formatShape(a)} with ${formatShape(b)}`);
    return x === 1 ? y : x;
  });
}

export const formatShape = (shape: Shape) => `[${shape.join(", ")}]`;
