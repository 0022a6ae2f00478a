// An estimate of the memory that a graph's intermediate values take at once: its nodes replayed in the order in which
// ONNX Runtime computes them, each value held until its last use.

import { DTYPE_BYTES } from "../core/dtype.ts";
import { sizeOf } from "../core/shape.ts";
import { CAST_BYTES } from "./onnx/lowering.ts";
import { runOrderOf } from "./onnx/order.ts";
import type { OpType } from "../graph/ops.ts";
import { isOp, type Outputs, type Tensor, topologicalOrder } from "../graph/tensor.ts";

/** Ops that write over an operand of the same size, where nothing else needs it. */
const IN_PLACE: ReadonlySet<OpType> = new Set<OpType>([
  ...(["Add", "Sub", "Mul", "Div", "Neg", "Exp", "Log", "Tanh", "Sigmoid", "Erf"] as const),
  ...(["Softmax", "Reshape"] as const),
]);

// Measured on 24 shapes of GPT-2 and Llama with sessions of 1,500 to 11,800 nodes that hold 50 to 1,050 MB: these three
// meet their processes' peaks within 12 %. ONNX Runtime's arena grows by doubling and cannot move what lies in it, so
// that its gaps take room as well; nodes take memory in the graph, in the session and as what building them leaves.
const ARENA_SHARE = 1.4;
const NODE_BYTES = 35e3;
/** The engine's library, its thread and the work around it, once for all sessions. */
export const ENGINE_BYTES = 100e6;

/** What compiling and running a graph adds to the process, weights apart. */
export function sessionBytes(outputs: Outputs): number {
  const numNodes = topologicalOrder(Object.values(outputs)).length;
  return NODE_BYTES * numNodes + ARENA_SHARE * peakBytes(outputs);
}

interface Buffer {
  readonly bytes: number;
  /** Values that lie in it and are still needed. */
  values: number;
}

/** The largest sum of bytes that a run holds, weights, inputs and constants apart. */
export function peakBytes(outputs: Outputs): number {
  const order = runOrderOf(outputs);
  const uses = new Map<Tensor, number>();
  const use = (tensor: Tensor) => uses.set(tensor, (uses.get(tensor) ?? 0) + 1);
  for (const tensor of [...order.flatMap(({ inputs }) => inputs), ...Object.values(outputs)])
    use(tensor);

  const buffers = new Map<Tensor, Buffer>();
  let held = 0;
  let peak = 0;
  for (const tensor of order) {
    if (isLeaf(tensor)) continue;
    const shared = tensor.inputs.find((x) => {
      const isLast = uses.get(x) === 1 && buffers.get(x)?.values === 1;
      return (
        buffers.has(x) &&
        IN_PLACE.has(tensor.op) &&
        bytesOf(x) === bytesOf(tensor) &&
        (isLast || isOp(tensor, "Reshape"))
      );
    });
    const buffer = (shared && buffers.get(shared)) ?? { bytes: bytesOf(tensor), values: 0 };
    if (!shared) held += buffer.bytes;
    buffer.values++;
    buffers.set(tensor, buffer);
    // A weight in another number format is cast for each use, part by part.
    const casts = tensor.inputs
      .filter(isCastWeight)
      .reduce((sum, x) => sum + Math.min(bytesOf(x), CAST_BYTES), 0);
    peak = Math.max(peak, held + casts);
    for (const x of tensor.inputs) {
      uses.set(x, uses.get(x)! - 1);
      const last = uses.get(x) === 0 ? buffers.get(x) : undefined;
      if (last && --last.values === 0) held -= last.bytes;
    }
  }
  return peak;
}

function isLeaf(tensor: Tensor): boolean {
  return tensor.inputs.length === 0 || isCastWeight(tensor);
}

function isCastWeight(tensor: Tensor): boolean {
  return isOp(tensor, "Cast") && isOp(tensor.inputs[0]!, "Parameter");
}

function bytesOf({ shape, dtype }: Tensor): number {
  return sizeOf(shape) * DTYPE_BYTES[dtype];
}
