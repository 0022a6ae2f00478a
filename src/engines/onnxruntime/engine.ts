// The ONNX Runtime engine: lowers a graph, hands it to a worker that owns the session, and passes values to and fro.
// The main thread stays free for progress and signals; results lie in shared memory that each run overwrites.

import { readFile } from "node:fs/promises";
import { basename, dirname } from "node:path";
import type { Precision } from "../../core/dtype.ts";
import { invariant } from "../../core/errors.ts";
import { fixedShape, sizeOf } from "../../core/shape.ts";
import { openQueue } from "../../core/worker.ts";
import { fewerLaunches } from "../../graph/launches.ts";
import { leaves, type Outputs, type Tensor } from "../../graph/tensor.ts";
import type { Engine, Program, Results, Weight } from "../engine.ts";
import { failureOf } from "../failure.ts";
import { type LoweringTarget, toOnnx, type WeightBytes } from "../onnx/onnx.ts";
import { estimate, roomOf } from "./estimate.ts";
import type { InputFormat, WorkerRequest } from "./worker.ts";

export interface OnnxRuntimeOptions {
  readonly description: string;
  readonly precisions: readonly Precision[];
  readonly target: LoweringTarget;
  /** The provider that runs every node, with its options; on any but the CPU's, nothing falls back to the CPU. */
  readonly provider: { readonly name: string };
  readonly deviceFree?: number | undefined;
  /** Threads of one operation; 0 lets ONNX Runtime take the physical cores. */
  readonly threads: number;
}

/**
 * How long a thread without work looks for more before it sleeps. Enough between the small operations of one run;
 * ONNX Runtime's own milliseconds take the processor from whatever else runs, a step's other threads among it.
 */
const SPIN_MICROSECONDS = "20";

/** The thread that owns the sessions. */
type Ask = (request: WorkerRequest) => Promise<number>;
const openWorker = () => openQueue<Ask>("./worker", import.meta.url, undefined, failureOf);

export function onnxRuntimeEngine(options: OnnxRuntimeOptions): Engine {
  const worker = openWorker();
  const shaped = (outputs: Outputs) =>
    options.target.fewLaunches ? fewerLaunches(outputs, options.target) : outputs;
  const { name } = options.provider;
  return {
    description: options.description,
    precisions: options.precisions,
    mapsWeights: name === "cpu",
    tiling: options.target.tiling,
    lanes: 1,
    room: roomOf(name),
    deviceFree: options.deviceFree,
    estimate: (outputs) => estimate(shaped(outputs), name),
    compile: (outputs, weights) => compile(worker, shaped(outputs), weights, options),
    dispose: worker.close,
  };
}

async function compile(
  worker: ReturnType<typeof openWorker>,
  outputs: Outputs,
  weights: ReadonlyMap<string, Weight>,
  { target, provider, threads }: OnnxRuntimeOptions,
): Promise<Program> {
  const { folder, bytes } = await locate(leaves(outputs, "Parameter").keys(), weights);
  const model = toOnnx(outputs, (name) => bytes.get(name)!, target);
  const shared = new Map(
    Object.entries(outputs).map(([name, { shape }]) => {
      const data = new Float32Array(new SharedArrayBuffer(4 * sizeOf(shape)));
      return [name, { data, shape: fixedShape(shape) }];
    }),
  );
  const program = await worker.ask({
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
    run: async (feeds) => {
      await worker.ask({ program, feeds });
      return results;
    },
    dispose: async () => void (await worker.ask({ program, feeds: null })),
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
async function locate(names: Iterable<string>, weights: ReadonlyMap<string, Weight>) {
  let folder: string | undefined;
  const bytes = new Map<string, WeightBytes>();
  for (const name of names) {
    const weight = weights.get(name);
    invariant(weight, `parameter ${name} is not bound`);
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
