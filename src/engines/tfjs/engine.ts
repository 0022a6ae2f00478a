// The TensorFlow.js engine: interprets a graph node by node, and lets go of every value after its last use.
// Slower than ONNX Runtime and independent of it: what the two agree on is right.

import { setImmediate } from "node:timers/promises";
import { decodeFloats } from "../../core/dtype.ts";
import { invariant, messageOf, UserError } from "../../core/errors.ts";
import { sizeOf } from "../../core/shape.ts";
import { readBytes } from "../../files/safetensors.ts";
import type { Operands, OpType } from "../../graph/ops.ts";
import { isOp, type Outputs, type Tensor, topologicalOrder } from "../../graph/tensor.ts";
import { smallTiles } from "../../nn/tiling.ts";
import { bytesOf, peakBytes } from "../counts.ts";
import type { Engine, Feeds, Program, Results, Room, Weight } from "../engine.ts";
import { failureOf } from "../failure.ts";
import { openTfjs, type TfjsBackend, type TfjsDevice } from "./backend.ts";
import { type Kernel, type KernelContext, kernels, type TfTensor } from "./kernels.ts";

/** The engine of one device; without one, of the fastest that is installed and works. */
export async function tfjsEngine(device?: TfjsDevice): Promise<Engine> {
  const { backend, absent } = await openTfjs(device);
  const programs = new Set<Program>();
  const version = `TensorFlow.js ${backend.tf.version_core}`;
  return {
    description: [`tfjs:${backend.device} (${version})`, ...absent.map(messageOf)].join("; "),
    precisions: ["fp32"],
    mapsWeights: false,
    tiling: smallTiles,
    lanes: 1,
    room: { host: LIBRARY_BYTES, device: 0 },
    estimate,
    compile: async (outputs, weights) => {
      const { run, dispose } = await compile(backend, outputs, weights);
      const program = { run, dispose: () => (programs.delete(program), dispose()) };
      programs.add(program);
      return program;
    },
    dispose: async () => {
      for (const program of programs) await program.dispose();
    },
  };
}

/** The library, what its backend compiles and its own pools, about. */
const LIBRARY_BYTES = 150e6;

/** Every value has a place of its own until its last use; what is stored in half precision is loaded as float32. */
function estimate(outputs: Outputs): Room {
  const order = topologicalOrder(Object.values(outputs));
  const widened = order.filter((tensor) => isOp(tensor, "Parameter"));
  const peak = peakBytes(order, outputs, { overwrites: false });
  const host = widened.reduce((sum, x) => sum + 4 * sizeOf(x.shape) - bytesOf(x), peak);
  return { host, device: 0 };
}

async function compile(
  { tf, name, device }: TfjsBackend,
  outputs: Outputs,
  weights: ReadonlyMap<string, Weight>,
): Promise<Program> {
  const order = topologicalOrder(Object.values(outputs));
  checkPrecision(order, device);
  const parameters: Record<string, Float32Array> = {};
  for (const tensor of order)
    if (isOp(tensor, "Parameter")) parameters[tensor.attributes.name] = await load(tensor, weights);
  // Programs of several backends live side by side, but TensorFlow.js has one current backend. One that has started is
  // current as soon as the call returns; its promise has nothing left to tell.
  const select = () => void (tf.getBackend() === name || tf.setBackend(name));

  select();
  /** Constants and parameters, which outlive a run. */
  const resident = new Map<Tensor, TfTensor>();
  for (const x of order)
    if (isOp(x, "Parameter") || isOp(x, "Constant"))
      resident.set(x, evaluate({ tf, values: parameters }, [], x));
  const steps = stepsOf(order, [...Object.values(outputs), ...resident.keys()]);

  const run = async (feeds: Feeds): Promise<Results> => {
    // Kernels block the thread: timers and signals get their turn between runs.
    await setImmediate();
    const values = new Map(resident);
    try {
      select();
      for (const { tensor, expired } of steps) {
        const inputs = tensor.inputs.map((x) => values.get(x)!);
        if (!values.has(tensor))
          values.set(tensor, evaluate({ tf, values: feeds }, inputs, tensor));
        for (const x of expired) {
          values.get(x)!.dispose();
          values.delete(x);
        }
      }
      const results: Record<string, Float32Array> = {};
      for (const [output, tensor] of Object.entries(outputs))
        results[output] = Float32Array.from(await values.get(tensor)!.data());
      return results;
    } catch (cause) {
      throw failureOf(messageOf(cause), "TensorFlow.js");
    } finally {
      for (const [tensor, value] of values) if (!resident.has(tensor)) value.dispose();
    }
  };

  let busy: Promise<unknown> = Promise.resolve();
  const inTurn = <Value>(work: () => Value | Promise<Value>): Promise<Value> => {
    const done = busy.then(work);
    busy = done.catch(() => undefined);
    return done;
  };
  return {
    run: (feeds) => inTurn(() => run(feeds)),
    dispose: () =>
      inTurn(() => {
        for (const value of resident.values()) value.dispose();
        resident.clear();
      }),
  };
}

/** The tensors in their order, each with those that nothing needs afterwards but that are not kept. */
function stepsOf(order: readonly Tensor[], kept: readonly Tensor[]) {
  const seen = new Set(kept);
  const backwards = order.toReversed().map((tensor) => {
    const expired = [...new Set(tensor.inputs.filter((x) => !seen.has(x)))];
    for (const x of expired) seen.add(x);
    return { tensor, expired };
  });
  return backwards.toReversed();
}

/** A tensor's value; what its kernel makes on the way is released. */
function evaluate(context: KernelContext, inputs: readonly TfTensor[], tensor: Tensor): TfTensor {
  const kernel = kernels[tensor.op] as Kernel<OpType>;
  return context.tf.tidy(() =>
    kernel(context, inputs as Operands<TfTensor>, tensor.attributes, tensor),
  );
}

/** TensorFlow.js has neither half precision nor float64; weights stored so are converted as they are loaded. */
function checkPrecision(order: readonly Tensor[], device: TfjsDevice): void {
  const isOther = ({ op, dtype }: Tensor) => op !== "Parameter" && /^(B?F16|F64)$/.test(dtype);
  const other = order.find(isOther);
  if (other)
    throw new UserError(`tfjs:${device} computes in F32 alone, the graph has ${other.dtype}`, {
      hint: "use --precision fp32",
    });
}

/** A parameter's values as float32, from its file or from memory; of codes the bytes as numbers. */
async function load(tensor: Tensor<"Parameter">, weights: ReadonlyMap<string, Weight>) {
  const { name, dtype } = tensor.attributes;
  const weight = weights.get(name);
  invariant(weight, `parameter ${name} is not bound`);
  const bytes = weight instanceof Uint8Array ? weight : await readBytes({ name, ...weight });
  if (dtype === "U8") return Float32Array.from(bytes);
  if (dtype === "I8") return Float32Array.from(bytes, (byte) => (byte << 24) >> 24);
  const values = decodeFloats(dtype, bytes);
  invariant(values, `parameter ${name} is ${dtype}`);
  return values;
}
