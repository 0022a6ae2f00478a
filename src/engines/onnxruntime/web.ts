// ONNX Runtime in a web page: the same graphs, on WebAssembly in a worker of its own, or on WebGPU.

import type * as OnnxRuntime from "onnxruntime-web";
import { messageOf, UserError } from "../../core/errors.ts";
import { leaves, type Outputs } from "../../graph/tensor.ts";
import type { Engine, Feeds, Program, Weight } from "../engine.ts";
import { failureOf } from "../failure.ts";
import { type LoweringTarget, targets, toOnnx } from "../onnx/onnx.ts";
import { estimate, roomOf } from "./estimate.ts";
import { formatOf, sessionEntries, sessionOptions, shapedFor } from "./session.ts";

interface WebDevice {
  readonly description: string;
  readonly target: LoweringTarget;
  /** Whose memory it takes, for an estimate. */
  readonly like: "cpu" | "webgpu";
  /** Of the package onnxruntime-web: the module that a page imports, and what that loads from beside it. */
  readonly files: readonly [module: string, ...others: string[]];
}

const wasm = (name: string) => [`ort-wasm-${name}.mjs`, `ort-wasm-${name}.wasm`] as const;

export const webDevices = {
  wasm: {
    description: "WebAssembly",
    target: targets.cpu,
    like: "cpu",
    files: ["ort.wasm.min.mjs", ...wasm("simd-threaded")],
  },
  webgpu: {
    description: "WebGPU",
    target: targets.webgpu,
    like: "webgpu",
    files: ["ort.webgpu.min.mjs", ...wasm("simd-threaded.asyncify")],
  },
} satisfies Readonly<Record<string, WebDevice>>;
export type WebDeviceName = keyof typeof webDevices;

/** Bytes that WebAssembly's 32-bit addresses reach. */
export const WASM_BYTES = 2 ** 32;

/** Threads share memory only with a page whose server says that it is alone; more than the large cores gain nothing. */
const threadsHere = () =>
  globalThis.crossOriginIsolated ? Math.min(8, navigator.hardwareConcurrency) : 1;

/** Starts a device of this page with the runtime's files at a URL; weights are ranges of files, by name, or in memory. */
export async function openWebEngine(
  name: WebDeviceName,
  runtimeUrl: string,
  files: ReadonlyMap<string, Blob>,
): Promise<Engine> {
  const device: WebDevice = webDevices[name];
  if (name === "webgpu" && !("gpu" in navigator))
    throw new UserError("this browser has no WebGPU here", { hint: "take WebAssembly" });
  // By a variable: the page's server has it, the bundle does not.
  const url = new URL(device.files[0], runtimeUrl).href;
  const ort = (await import(url)) as typeof OnnxRuntime;
  ort.env.logLevel = "fatal";
  // Off the thread that draws the page; the work of WebGPU is not on it anyway.
  Object.assign(ort.env.wasm, { wasmPaths: runtimeUrl, proxy: name === "wasm" });
  ort.env.wasm.numThreads = threadsHere();
  const { target, like, description } = device;
  return {
    description,
    precisions: ["fp32"],
    mapsWeights: false,
    tiling: target.tiling,
    lanes: 1,
    room: roomOf(like),
    estimate: (outputs) => estimate(shapedFor(outputs, target), like),
    compile: (outputs, weights) => {
      const shaped = shapedFor(outputs, target);
      return compile(ort, shaped, weights, files, { name, target }).catch(fail);
    },
    dispose: () => Promise.resolve(),
  };
}

const fail = (error: unknown): never => {
  throw failureOf(messageOf(error));
};

async function compile(
  ort: typeof OnnxRuntime,
  outputs: Outputs,
  weights: ReadonlyMap<string, Weight>,
  files: ReadonlyMap<string, Blob>,
  provider: { readonly name: WebDeviceName; readonly target: LoweringTarget },
): Promise<Program> {
  const { name, target } = provider;
  const place = (weight: Weight) =>
    weight instanceof Uint8Array ? weight : { ...weight, location: weight.file };
  const model = toOnnx(outputs, (name) => place(weights.get(name)!), target);
  const session = await ort.InferenceSession.create(model, {
    ...sessionOptions({ name }),
    externalData: Array.from(files, ([path, data]) => ({ path, data })),
    extra: { session: sessionEntries({ name }) },
  });
  const inputs = leaves(outputs, "Input");
  const tensorOf = (name: string, data: Float32Array | BigInt64Array) => {
    const { shape, type } = formatOf(inputs.get(name)!, target);
    // A copy: what goes to the worker is gone from here.
    const values = type === "int32" ? Int32Array.from(data as BigInt64Array, Number) : data.slice();
    return new ort.Tensor(type, values as Float32Array & BigInt64Array & Int32Array, shape);
  };
  return {
    run: async (feeds: Feeds) => {
      const tensors = Object.entries(feeds).map(([name, data]) => [name, tensorOf(name, data)]);
      const fed = Object.fromEntries(tensors) as Record<string, OnnxRuntime.Tensor>;
      const results = await session.run(fed).catch(fail);
      const values = Object.entries(results).map(([name, { data }]) => [name, data]);
      return Object.fromEntries(values) as Record<string, Float32Array>;
    },
    dispose: () => session.release(),
  };
}
