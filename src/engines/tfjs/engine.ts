// The TensorFlow.js engine: interprets a graph node by node, and lets go of every value after its last use.
// Slower than ONNX Runtime and independent of it: what the two agree on is right.

import { setImmediate } from "node:timers/promises";
import { decodeFloats, type Dtype } from "../../core/dtype.ts";
import { invariant, messageOf, UserError } from "../../core/errors.ts";
import { fixedShape, sizeOf } from "../../core/shape.ts";
import { readFloats } from "../../files/safetensors.ts";
import type { OpType } from "../../graph/ops.ts";
import { isOp, type Outputs, type Tensor, topologicalOrder } from "../../graph/tensor.ts";
import { smallTiles } from "../../nn/tiling.ts";
import { bytesOf, peakBytes } from "../counts.ts";
import type { Engine, Feeds, Program, Results, Room, Weight } from "../engine.ts";
import { loadTfjs, TFJS_DEVICES, type TfjsBackend, type TfjsDevice } from "./backend.ts";
import { type Kernel, type KernelContext, kernels, type TfTensor } from "./kernels.ts";

/** The engine of one device; without one, of the fastest that is installed and works. */
export async function tfjsEngine(device?: TfjsDevice): Promise<Engine> {
  const { backend, absent } = await openBackend(device ? [device] : TFJS_DEVICES);
  const programs = new Set<Program>();
  const version = `TensorFlow.js ${backend.tf.version_core}`;
  return {
    description: [`tfjs:${backend.device} (${version})`, ...absent].join("; "),
    precisions: ["fp32"],
    mapsWeights: false,
    tiling: smallTiles,
    room: { host: LIBRARY_BYTES, device: 0 },
    estimate,
    compile: async (outputs, weights) => {
      const compiled = await compile(backend, outputs, weights);
      const program: Program = {
        ...compiled,
        dispose: () => {
          programs.delete(program);
          return compiled.dispose();
        },
      };
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
  const host =
    widened.reduce((sum, x) => sum + 4 * sizeOf(x.shape) - bytesOf(x), 0) +
    peakBytes(order, outputs, { overwrites: false });
  return { host, device: 0 };
}

async function openBackend(devices: readonly TfjsDevice[]) {
  const absent: string[] = [];
  for (const device of devices) {
    try {
      return { backend: await loadTfjs(device), absent };
    } catch (error) {
      if (device === devices.at(-1)) throw error;
      absent.push(messageOf(error));
    }
  }
  throw new Error("internal: no device to try");
}

async function compile(
  backend: TfjsBackend,
  outputs: Outputs,
  weights: ReadonlyMap<string, Weight>,
): Promise<Program> {
  const order = topologicalOrder(Object.values(outputs));
  checkPrecision(order, backend.device);
  const values = new Map<string, Float32Array>();
  for (const tensor of order)
    if (isOp(tensor, "Parameter")) values.set(tensor.attributes.name, await load(tensor, weights));
  const interpreter = new Interpreter(backend, outputs, order, values);

  let busy: Promise<unknown> = Promise.resolve();
  const inTurn = <Value>(work: () => Promise<Value>): Promise<Value> => {
    const done = busy.then(work);
    busy = done.catch(() => undefined);
    return done;
  };
  return {
    run: (feeds) => inTurn(() => interpreter.run(feeds)),
    dispose: () => inTurn(async () => interpreter.dispose()),
  };
}

class Interpreter {
  readonly #backend: TfjsBackend;
  readonly #outputs: Outputs;
  /** What a run computes, each with the tensors that nothing needs afterwards. */
  readonly #steps: readonly { readonly tensor: Tensor; readonly expired: readonly Tensor[] }[];
  /** Constants and parameters, which outlive a run. */
  readonly #resident = new Map<Tensor, TfTensor>();

  constructor(
    backend: TfjsBackend,
    outputs: Outputs,
    order: readonly Tensor[],
    parameters: ReadonlyMap<string, Float32Array>,
  ) {
    this.#backend = backend;
    this.#outputs = outputs;
    const { tf } = backend;
    this.#onBackend(() => {
      const valuesOf = (name: string) => parameters.get(name)!;
      for (const tensor of order)
        if (isOp(tensor, "Parameter") || isOp(tensor, "Constant"))
          this.#resident.set(tensor, evaluate({ tf, valuesOf }, [], tensor));
    });
    const computed = order.filter((tensor) => !this.#resident.has(tensor));
    const seen = new Set<Tensor>([...Object.values(outputs), ...this.#resident.keys()]);
    const lastUses = new Map<Tensor, Tensor[]>();
    for (const user of computed.toReversed()) {
      const expired = new Set(user.inputs.filter((x) => !seen.has(x)));
      lastUses.set(user, [...expired]);
      for (const x of expired) seen.add(x);
    }
    this.#steps = computed.map((tensor) => ({ tensor, expired: lastUses.get(tensor)! }));
  }

  async run(feeds: Feeds): Promise<Results> {
    // Kernels block the thread: timers and signals get their turn between runs.
    await setImmediate();
    const { tf } = this.#backend;
    const values = new Map(this.#resident);
    const valuesOf = (name: string) => {
      const data = feeds[name];
      invariant(data, `no input ${name}`);
      return data;
    };
    try {
      this.#onBackend(() => {
        for (const { tensor, expired } of this.#steps) {
          const inputs = tensor.inputs.map((x) => values.get(x)!);
          values.set(tensor, evaluate({ tf, valuesOf }, inputs, tensor));
          for (const x of expired) {
            values.get(x)!.dispose();
            values.delete(x);
          }
        }
      });
      const results = Object.entries(this.#outputs).map(
        async ([name, tensor]) =>
          [name, Float32Array.from(await values.get(tensor)!.data())] as const,
      );
      return Object.fromEntries(await Promise.all(results));
    } catch (cause) {
      throw new UserError(`TensorFlow.js: ${messageOf(cause)}`, { exitCode: 1, cause });
    } finally {
      for (const [tensor, value] of values) if (!this.#resident.has(tensor)) value.dispose();
    }
  }

  dispose(): void {
    for (const value of this.#resident.values()) value.dispose();
    this.#resident.clear();
  }

  /** Programs of several backends live side by side, but TensorFlow.js has one current backend. */
  #onBackend(work: () => void): void {
    const { tf, name } = this.#backend;
    // A backend that has started is current as soon as this returns; the promise has nothing left to tell.
    if (tf.getBackend() !== name) void tf.setBackend(name);
    work();
  }
}

/** A tensor's value; what its kernel makes on the way is released. */
function evaluate(context: KernelContext, inputs: readonly TfTensor[], tensor: Tensor): TfTensor {
  const kernel = kernels[tensor.op] as Kernel<OpType>;
  return context.tf.tidy(() => kernel(context, inputs, tensor.attributes, tensor));
}

/** TensorFlow.js has neither half precision nor float64; weights stored so are converted as they are loaded. */
function checkPrecision(order: readonly Tensor[], device: TfjsDevice): void {
  const floats: readonly Dtype[] = ["F16", "BF16", "F64"];
  const other = order.find(({ op, dtype }) => op !== "Parameter" && floats.includes(dtype));
  if (other)
    throw new UserError(`tfjs:${device} computes in F32 alone, the graph has ${other.dtype}`, {
      hint: "use --precision fp32",
    });
}

/** A parameter's values as float32, from its file or from memory. */
async function load(
  { attributes: { name, shape, dtype } }: Tensor<"Parameter">,
  weights: ReadonlyMap<string, Weight>,
): Promise<Float32Array> {
  const weight = weights.get(name);
  invariant(weight, `parameter ${name} is not bound`);
  const values =
    weight instanceof Uint8Array
      ? decodeFloats(dtype, weight)
      : await readFloats({ name, dtype, shape: fixedShape(shape), ...weight });
  invariant(values, `parameter ${name} is ${dtype}`);
  return values;
}
