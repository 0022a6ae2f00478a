// What ONNX Runtime takes for a graph. Memory: its nodes, and its values replayed in the order in which they are computed,
// each held until its last use. Time, on the processor: arithmetic and memory traffic over the rates at which the machine
// multiplies matrices and passes over arrays of the model's own sizes.

import { fixedShape, sizeOf } from "../../core/shape.ts";
import { expand, input, matMul, mul, parameter, reduceSum } from "../../graph/build.ts";
import { isOp, type Outputs, type Tensor, topologicalOrder } from "../../graph/tensor.ts";
import { bytesOf, type Cost, costOf, isCastWeight, operationsOf, peakBytes } from "../counts.ts";
import type { Engine, Estimate, Room } from "../engine.ts";
import { CAST_BYTES } from "../onnx/lowering.ts";
import { runOrderOf } from "../onnx/order.ts";

/** Both per second. */
export type Speed = Cost;

// Measured on 24 shapes of GPT-2 and Llama with sessions of 1,500 to 11,800 nodes that hold 50 to 1,050 MB: these three
// meet their processes' peaks within 12 %. ONNX Runtime's arena grows by doubling and cannot move what lies in it, so
// that its gaps take room as well; nodes take memory in the graph, in the session and as what building them leaves.
const ARENA_SHARE = 1.4;
const NODE_BYTES = 35e3;
/** The engine's library, its thread and the work around it, once for all sessions. */
export const ENGINE_BYTES = 100e6;

/**
 * What a process takes of a card apart from weights and values: the driver's context, the libraries' workspaces, the rest
 * of a region of the arena, which grows by powers of two. With the share above, five shapes of GPT-2 on an H200 (CUDA, 3.8
 * to 17 GB, f32 and bf16, one to sixteen windows) are met within 17 %; WebGPU was measured once.
 */
const CONTEXT_BYTES: Readonly<Record<string, number>> = { cpu: 0, webgpu: 2e8 };
const OTHER_CONTEXT_BYTES = 1e9;

/** Of a provider, once for all sessions. */
export const roomOf = (provider: string): Room => ({
  host: ENGINE_BYTES,
  device: CONTEXT_BYTES[provider] ?? OTHER_CONTEXT_BYTES,
});

export function estimate(outputs: Outputs, provider: string, speed: SpeedOf): Estimate {
  if (provider === "cpu")
    return {
      room: { host: sessionBytes(outputs), device: 0 },
      cost: costOf(outputs),
      seconds: async () => secondsOf(outputs, await speed(sizesOf(outputs))),
    };
  const order = runOrderOf(outputs);
  // A weight that is cast is cast once, and kept in both formats.
  const weights = order.filter((tensor) => isOp(tensor, "Parameter") || isCastWeight(tensor));
  const device =
    weights.reduce((sum, tensor) => sum + bytesOf(tensor), 0) +
    ARENA_SHARE * peakBytes(order, outputs, { overwrites: true });
  return {
    room: { host: NODE_BYTES * order.length, device },
    cost: costOf(outputs),
    seconds: null,
  };
}

/** What compiling and running a graph on the processor adds to the process, weights apart. */
export function sessionBytes(outputs: Outputs): number {
  const order = runOrderOf(outputs);
  const habits = { overwrites: true, castBytes: CAST_BYTES };
  return NODE_BYTES * order.length + ARENA_SHARE * peakBytes(order, outputs, habits);
}

/** To start a node and its threads: what small models spend much of their time on. */
const NODE_SECONDS = 3e-6;

/** A run of the graph. */
export function secondsOf(outputs: Outputs, speed: Speed): number {
  const { operations, bytes } = costOf(outputs);
  const numNodes = topologicalOrder(Object.values(outputs)).length;
  return operations / speed.operations + bytes / speed.bytes + numNodes * NODE_SECONDS;
}

/** Products and passes that are timed at once: so many, and such arithmetic, that what starts a run counts for little. */
const [LEAST_TIMED, LEAST_OPERATIONS] = [16, 1e10];
/** And no more: of a toy's products it would take a million, and minutes to compile them. */
const MOST_TIMED = 1024;

/** A pass of a step against the plainest: exponentials, and arrays that no cache holds any more. */
const SHARE_OF_PASSES = 0.55;

export type Sizes = Readonly<Record<"rows" | "hidden" | "intermediate", number>>;
export type SpeedOf = (sizes: Sizes) => Promise<Speed>;

/** Of the products with weights, forward and back, that take most of the graph's arithmetic: an MLP's, as a rule. */
function sizesOf(outputs: Outputs): Sizes {
  const totals = new Map<string, { sizes: Sizes; operations: number }>();
  for (const tensor of topologicalOrder(Object.values(outputs))) {
    const [, matrix] = tensor.inputs;
    const stored = matrix && isOp(matrix, "Cast") ? matrix.inputs[0] : matrix;
    if (!isOp(tensor, "MatMul") || stored!.inputs.length > 0 || matrix!.shape.length !== 2)
      continue;
    const [hidden, intermediate] = fixedShape(matrix!.shape).toSorted((a, b) => a - b);
    const rows = sizeOf(tensor.shape) / Number(tensor.shape.at(-1));
    const sizes = { rows, hidden: hidden!, intermediate: intermediate! };
    const { operations } = totals.get(String([rows, hidden, intermediate])) ?? { operations: 0 };
    const sum = operations + operationsOf(tensor);
    totals.set(String([rows, hidden, intermediate]), { sizes, operations: sum });
  }
  return [...totals.values()].reduce((a, b) => (a.operations >= b.operations ? a : b)).sizes;
}

/** Each measured once. */
export function speedsOf(engine: Pick<Engine, "compile">): SpeedOf {
  const known = new Map<string, Promise<Speed>>();
  return (sizes) => {
    const key = JSON.stringify(sizes);
    const speed = known.get(key) ?? measureSpeed(engine, sizes);
    known.set(key, speed);
    return speed;
  };
}

/** Of products and passes over [rows, hidden] and [rows, intermediate], each the best of three runs. */
export async function measureSpeed(
  engine: Pick<Engine, "compile">,
  { rows, hidden, intermediate }: Sizes,
): Promise<Speed> {
  const [up, down] = [
    parameter("up", [hidden, intermediate]),
    parameter("down", [intermediate, hidden]),
  ];
  const zeros = new Uint8Array(4 * hidden * intermediate);
  const weights = new Map([
    ["up", zeros],
    ["down", zeros],
  ]);
  const enough = LEAST_OPERATIONS / (2 * rows * hidden * intermediate);
  const timed = Math.min(MOST_TIMED, Math.max(LEAST_TIMED, enough));
  const start = (width: number): Tensor => expand(input("x", [1, 1], "F32"), [rows, width]);
  let products = start(hidden);
  for (let i = 0; i < timed; i += 2) products = matMul(matMul(products, up), down);
  const wide = start(intermediate);
  let passes = wide;
  for (let i = 0; i < timed; i++) passes = mul(passes, wide);

  const rates = [];
  for (const chain of [products, passes]) {
    const outputs = { sum: reduceSum(chain, [0, 1]) };
    const seconds = await shortest(engine, outputs, weights);
    const { operations, bytes } = costOf(outputs);
    rates.push((operations || bytes) / seconds);
  }
  const [operations, bytes] = rates as [number, number];
  return { operations, bytes: SHARE_OF_PASSES * bytes };
}

async function shortest(
  engine: Pick<Engine, "compile">,
  outputs: Outputs,
  weights: ReadonlyMap<string, Uint8Array>,
): Promise<number> {
  const program = await engine.compile(outputs, weights);
  let least = Number.POSITIVE_INFINITY;
  for (let i = 0; i < 3; i++) {
    const started = performance.now();
    await program.run({ x: new Float32Array(1) });
    least = Math.min(least, performance.now() - started);
  }
  await program.dispose();
  return least / 1000;
}
