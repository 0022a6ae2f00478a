// The memory that a run of a graph holds, counted from its nodes.

import { DTYPE_BYTES } from "../core/dtype.ts";
import { sizeOf } from "../core/shape.ts";
import { ops } from "../graph/ops.ts";
import { isOp, type Outputs, type Tensor } from "../graph/tensor.ts";

interface Habits {
  /** Whether an op may write over an operand. */
  readonly overwrites: boolean;
  /**
   * A weight in another number format is cast for each use, part by part, so many bytes at a time; 0: once, at load, but
   * for blocks of integers, which are widened whole. Undefined: all at load or, of blocks, until the last use.
   */
  readonly castBytes?: number;
}

/** The largest sum of bytes that a run in this order holds, weights, inputs and constants apart. */
export function peakBytes(order: readonly Tensor[], outputs: Outputs, habits: Habits) {
  const { overwrites, castBytes } = habits;
  const isLate = (x: Tensor) =>
    isCastWeight(x) || (castBytes !== undefined && isOp(x, "Dequantize"));
  const widenedBytes = (x: Tensor) =>
    Math.min(bytesOf(x), castBytes || (isCastWeight(x) ? 0 : Infinity));
  const uses = new Map<Tensor, number>();
  for (const tensor of [...order.flatMap(({ inputs }) => inputs), ...Object.values(outputs)])
    uses.set(tensor, (uses.get(tensor) ?? 0) + 1);
  /** Where a value lies, with how many others that are still needed. */
  const buffers = new Map<Tensor, { readonly bytes: number; values: number }>();
  let held = 0;
  let peak = 0;
  for (const tensor of order) {
    if (tensor.inputs.length === 0 || isLate(tensor)) continue;
    const { place } = ops[tensor.op];
    const shared = tensor.inputs.find((x) => {
      const isLast = uses.get(x) === 1 && buffers.get(x)?.values === 1;
      const isOver = place === "over" && overwrites && isLast;
      return buffers.has(x) && bytesOf(x) === bytesOf(tensor) && (isOver || place === "view");
    });
    const buffer = (shared && buffers.get(shared)) ?? { bytes: bytesOf(tensor), values: 0 };
    if (!shared) held += buffer.bytes;
    buffer.values++;
    buffers.set(tensor, buffer);
    let now = held;
    for (const x of tensor.inputs) if (isLate(x)) now += widenedBytes(x);
    peak = Math.max(peak, now);
    for (const x of tensor.inputs) {
      uses.set(x, uses.get(x)! - 1);
      const last = uses.get(x) === 0 ? buffers.get(x) : undefined;
      if (last && --last.values === 0) held -= last.bytes;
    }
  }
  return peak;
}

export function isCastWeight(tensor: Tensor): boolean {
  return isOp(tensor, "Cast") && isOp(tensor.inputs[0]!, "Parameter");
}

export function bytesOf({ shape, dtype }: Tensor): number {
  return sizeOf(shape) * DTYPE_BYTES[dtype];
}
