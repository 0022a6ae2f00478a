// The memory that ONNX Runtime takes for a graph: its nodes, and its values replayed in the order in which they are
// computed, each held until its last use.

import { isOp, type Outputs } from "../../graph/tensor.ts";
import { bytesOf, isCastWeight, peakBytes } from "../counts.ts";
import type { Room } from "../engine.ts";
import { CAST_BYTES } from "../onnx/lowering.ts";
import { runOrderOf } from "../onnx/order.ts";

// Measured on 24 shapes of GPT-2 and Llama, of 1,500 to 11,800 nodes and 50 to 1,050 MB: these three meet the processes'
// peaks within 12 %. The arena grows by doubling, and its gaps take room; so do nodes, in the graph and in the session.
const ARENA_SHARE = 1.4;
const NODE_BYTES = 35e3;
/**
 * Factors of blocks lie for a moment between what is widened, so that the arena's gaps do not fit the next matrix: so many
 * of the largest piece are added: two Llamas, of 4 and of 2 layers with 128k tokens, are met within 10 % so.
 */
const GAPS_OF_BLOCKS = 2;
/** The engine's library, its thread and the work around it, once for all sessions. */
export const ENGINE_BYTES = 100e6;

/**
 * What a process takes of a card apart from weights and values: the driver's context, workspaces, the rest of a region of
 * the arena. Five shapes of GPT-2 on an H200 (CUDA, 3.8 to 17 GB) are met within 17 %, and seven others later, in F32 and
 * half precision, within 15 %; WebGPU was measured once.
 */
const CONTEXT_BYTES: Readonly<Record<string, number>> = { cpu: 0, webgpu: 2e8 };
const OTHER_CONTEXT_BYTES = 1e9;

/** Of a provider, once for all sessions. */
export const roomOf = (provider: string): Room => ({
  host: ENGINE_BYTES,
  device: CONTEXT_BYTES[provider] ?? OTHER_CONTEXT_BYTES,
});

/** What compiling and running a graph adds to the process, weights apart, and to a device, with them. */
export function estimate(outputs: Outputs, provider: string): Room {
  const order = runOrderOf(outputs);
  const isHost = provider === "cpu";
  const habits = { overwrites: true, castBytes: isHost ? CAST_BYTES : 0 };
  const nodes = NODE_BYTES * order.length;
  const late = order.filter((x) => isCastWeight(x) || isOp(x, "Dequantize"));
  const pieces = late.map((x) => (isHost ? Math.min(bytesOf(x), CAST_BYTES) : bytesOf(x)));
  const gaps = late.some((x) => isOp(x, "Dequantize")) ? GAPS_OF_BLOCKS : 0;
  const largest = pieces.reduce((a, b) => Math.max(a, b), 0);
  const values = ARENA_SHARE * peakBytes(order, outputs, habits) + gaps * largest;
  if (isHost) return { host: nodes + values, device: 0 };
  // A weight that is cast is cast once, and kept in both formats.
  const weights = order.filter((tensor) => isOp(tensor, "Parameter") || isCastWeight(tensor));
  return { host: nodes, device: weights.reduce((sum, x) => sum + bytesOf(x), values) };
}
