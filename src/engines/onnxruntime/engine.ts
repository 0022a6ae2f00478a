// The ONNX Runtime engine: lowers a graph, hands it to a worker that owns the session, and passes values to and fro.
// The main thread stays free for progress and signals; results lie in shared memory that each run overwrites.

import { readFile } from "node:fs/promises";
import { basename, dirname } from "node:path";
import type { Worker } from "node:worker_threads";
import type { Precision } from "../../core/dtype.ts";
import { UserError } from "../../core/errors.ts";
import { fixedShape, sizeOf } from "../../core/shape.ts";
import { startWorker } from "../../core/worker.ts";
import { fewerLaunches } from "../../graph/launches.ts";
import { leaves, type Outputs, type Tensor } from "../../graph/tensor.ts";
import type { Engine, Feeds, Program, Results, Weight } from "../engine.ts";
import { type LoweringTarget, toOnnx, type WeightBytes } from "../onnx/onnx.ts";
import { estimate, roomOf } from "./estimate.ts";
import type { InputFormat, WorkerReply, WorkerRequest } from "./worker.ts";

export interface OnnxRuntimeOptions {
  readonly description: string;
  readonly precisions: readonly Precision[];
  readonly target: LoweringTarget;
  /** The provider that runs every node, with its options; on any but the CPU's, nothing falls back to the CPU. */
  readonly provider: { readonly name: string };
  /** Threads of one operation; 0 lets ONNX Runtime take the physical cores. */
  readonly threads: number;
}

/**
 * How long a thread without work looks for more before it sleeps. Enough between the small operations of one run;
 * ONNX Runtime's own milliseconds take the processor from whatever else runs, a step's other threads among it.
 */
const SPIN_MICROSECONDS = "20";

export function onnxRuntimeEngine(options: OnnxRuntimeOptions): Engine {
  const worker = new SessionWorker();
  const shaped = (outputs: Outputs) =>
    options.target.fewLaunches ? fewerLaunches(outputs) : outputs;
  const { name } = options.provider;
  return {
    description: options.description,
    precisions: options.precisions,
    mapsWeights: name === "cpu",
    tiling: options.target.tiling,
    room: roomOf(name),
    estimate: (outputs) => estimate(shaped(outputs), name),
    compile: (outputs, weights) => compile(worker, shaped(outputs), weights, options),
    dispose: () => worker.close(),
  };
}

async function compile(
  worker: SessionWorker,
  outputs: Outputs,
  weights: ReadonlyMap<string, Weight>,
  { target, provider, threads }: OnnxRuntimeOptions,
): Promise<Program> {
  const names = [...leaves(outputs, "Parameter").keys()];
  const { folder, bytes } = await locate(names, weights);
  const model = toOnnx(outputs, (name) => bytes.get(name)!, target);
  const shared = new Map(
    Object.entries(outputs).map(([name, { shape }]) => {
      const data = new Float32Array(new SharedArrayBuffer(4 * sizeOf(shape)));
      return [name, { data, shape: fixedShape(shape) }];
    }),
  );
  const program = await worker.call({
    kind: "compile",
    model,
    inputs: new Map([...leaves(outputs, "Input")].map(([name, x]) => [name, formatOf(x, target)])),
    outputs: shared,
    options: {
      executionProviders: [provider],
      intraOpNumThreads: threads,
      // The graph comes in its final form. On the CPU what ONNX Runtime would rewrite saves no time, and splits and moved
      // transposes keep values alive for longer.
      graphOptimizationLevel: provider.name === "cpu" ? "disabled" : "all",
      // Fatal only: errors come as exceptions, and warnings would break into the progress line.
      logSeverityLevel: 4,
      // Neither saves time here, and each keeps further copies of weights or activations.
      enableMemPattern: false,
      extra: {
        session: {
          disable_prepacking: "1",
          intra_op: { spin_duration_us: SPIN_MICROSECONDS },
          ...(provider.name !== "cpu" && { disable_cpu_ep_fallback: "1" }),
          ...(folder && { model_external_initializers_file_folder_path: folder }),
        },
      },
    },
  });
  const results: Results = Object.fromEntries([...shared].map(([name, { data }]) => [name, data]));
  return {
    run: async (feeds: Feeds) => {
      await worker.call({ kind: "run", program, feeds });
      return results;
    },
    dispose: async () => {
      await worker.call({ kind: "release", program });
    },
  };
}

function formatOf({ shape, dtype }: Tensor, { int64 }: LoweringTarget): InputFormat {
  const integers = int64 ? "int64" : "int32";
  return { shape: fixedShape(shape), type: dtype === "I64" ? integers : "float32" };
}

/**
 * External data must lie in one folder, as real files: that of the first weight. Weights from elsewhere
 * (a second folder, memory) go into the model itself.
 */
async function locate(names: readonly string[], weights: ReadonlyMap<string, Weight>) {
  let folder: string | undefined;
  const bytes = new Map<string, WeightBytes>();
  for (const name of names) {
    const weight = weights.get(name);
    if (!weight) throw new Error(`internal: parameter ${name} is not bound`);
    if (weight instanceof Uint8Array) {
      bytes.set(name, weight);
      continue;
    }
    const { file, offset, byteLength } = weight;
    folder ??= dirname(file);
    if (dirname(file) === folder) bytes.set(name, { location: basename(file), offset, byteLength });
    else bytes.set(name, (await readFile(file)).subarray(offset, offset + byteLength));
  }
  return { folder, bytes };
}

/** Requests to the worker and their replies, matched by number. */
class SessionWorker {
  readonly #worker: Worker;
  readonly #pending = new Map<
    number,
    { resolve: (value: number) => void; reject: (error: Error) => void }
  >();
  #count = 0;

  constructor() {
    this.#worker = startWorker("./worker", import.meta.url);
    this.#worker.unref();
    this.#worker.on("message", (reply: WorkerReply) => {
      const { resolve, reject } = this.#pending.get(reply.id)!;
      this.#pending.delete(reply.id);
      if (this.#pending.size === 0) this.#worker.unref();
      if ("result" in reply) resolve(reply.result);
      else reject(new UserError(`ONNX Runtime: ${reply.error}`, { exitCode: 1 }));
    });
    this.#worker.on("error", (error) => {
      for (const { reject } of this.#pending.values()) reject(error);
      this.#pending.clear();
    });
  }

  call(request: WorkerRequest): Promise<number> {
    const id = this.#count++;
    return new Promise((resolve, reject) => {
      this.#pending.set(id, { resolve, reject });
      this.#worker.ref();
      this.#worker.postMessage({ id, request });
    });
  }

  /** After the last reply; a worker must not be torn down inside a run. */
  async close(): Promise<void> {
    await this.#worker.terminate();
  }
}
