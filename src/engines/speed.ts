// How long a graph takes on this machine: its arithmetic and its memory traffic, over the rates at which the machine
// multiplies matrices and passes over arrays of the model's own sizes.

import { DTYPE_BYTES } from "../core/dtype.ts";
import { sizeOf } from "../core/shape.ts";
import type { Engine } from "./index.ts";
import { expand, input, matMul, mul, parameter, reduceSum } from "../graph/build.ts";
import { isOp, type Outputs, type Tensor, topologicalOrder } from "../graph/tensor.ts";

export interface Cost {
  /** Multiplications and additions of the matrix products. */
  readonly operations: number;
  /** Read and written by everything else: elementwise passes, reductions, copies. */
  readonly bytes: number;
}

/** Both per second. */
export type Speed = Cost;

export function costOf(outputs: Outputs): Cost {
  let [operations, bytes] = [0, 0];
  for (const tensor of topologicalOrder(Object.values(outputs))) {
    if (isOp(tensor, "MatMul")) operations += operationsOf(tensor);
    else if (tensor.inputs.length > 0 && !isOp(tensor, "Reshape")) bytes += trafficOf(tensor);
  }
  return { operations, bytes };
}

function operationsOf({ inputs, attributes, shape }: Tensor<"MatMul">): number {
  return 2 * sizeOf(shape) * Number(inputs[0]!.shape.at(attributes.transposeA ? -2 : -1));
}

/** What a node reads and writes; of what it picks from, only what it takes. */
function trafficOf(tensor: Tensor): number {
  const picks = isOp(tensor, "Gather") || isOp(tensor, "Slice");
  const arrays = [tensor, ...(picks ? [tensor] : tensor.inputs)];
  return arrays.reduce((sum, { shape, dtype }) => sum + sizeOf(shape) * DTYPE_BYTES[dtype], 0);
}

/** To start a node and its threads: what small models spend much of their time on. */
const NODE_SECONDS = 3e-6;

/** What the host takes for a trained value: to pass it and add its gradient up for a micro batch; to update it in a step. */
export const HOST_SECONDS = 17e-9;

/** A run of the graph. */
export function secondsOf(outputs: Outputs, speed: Speed): number {
  const { operations, bytes } = costOf(outputs);
  const numNodes = topologicalOrder(Object.values(outputs)).length;
  return operations / speed.operations + bytes / speed.bytes + numNodes * NODE_SECONDS;
}

/** Products and passes that are timed at once: so many, and such arithmetic, that what starts a run counts for little. */
const [LEAST_TIMED, LEAST_OPERATIONS] = [16, 1e10];

/** A pass of a step against the plainest: exponentials, and arrays that no cache holds any more. */
const SHARE_OF_PASSES = 0.55;

/** Of products and passes over [rows, hidden] and [rows, intermediate], each the best of three runs. */
export async function measureSpeed(
  engine: Engine,
  { rows, hidden, intermediate }: Readonly<Record<"rows" | "hidden" | "intermediate", number>>,
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
  const timed = Math.max(LEAST_TIMED, LEAST_OPERATIONS / (2 * rows * hidden * intermediate));
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
  engine: Engine,
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
