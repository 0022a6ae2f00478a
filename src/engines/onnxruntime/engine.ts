// The ONNX Runtime engine: lowers a graph, hands it to a worker that owns the session, and passes values to and fro.
// The main thread stays free for progress and signals; results lie in shared memory that each run overwrites.

import { cpus, totalmem } from "node:os";
import { basename, dirname } from "node:path";
import type { Precision } from "../../core/dtype.ts";
import { invariant } from "../../core/errors.ts";
import { fixedShape, sizeOf } from "../../core/shape.ts";
import { openQueue } from "../../core/worker.ts";
import { readBytes } from "../../files/safetensors.ts";
import { isOp, leaves, type Outputs, topologicalOrder } from "../../graph/tensor.ts";
import { bytesOf } from "../counts.ts";
import type { Engine, Program, Results, Weight } from "../engine.ts";
import { failureOf } from "../failure.ts";
import { type LoweringTarget, toOnnx, type WeightBytes } from "../onnx/onnx.ts";
import { estimate, roomOf } from "./estimate.ts";
import { formatOf, sessionEntries, sessionOptions, shapedFor } from "./session.ts";
import type { WorkerRequest } from "./worker.ts";

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

type Ask = (request: WorkerRequest) => Promise<number>;
const openWorker = () => openQueue<Ask>("./worker", import.meta.url, undefined, failureOf);

export function onnxRuntimeEngine(options: OnnxRuntimeOptions): Engine {
  const worker = openWorker();
  const shaped = (outputs: Outputs) => shapedFor(outputs, options.target);
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
      ...sessionOptions(provider),
      intraOpNumThreads: threads,
      extra: {
        session: {
          ...sessionEntries(provider, provider.name === "cpu" && prepacks(outputs)),
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

/** Of the machine's memory, for matrices that are packed: they are the process's own then, no longer pages of a file. */
const MOST_PACKED = 1 / 8;

/**
 * Intel's Xeons compute a step in 8 to 19 % less time with packed matrices, AMD's in 0 to 5 % (docs/scaling.md). Since packed
 * products differ in the last digits, what decides is the same in all runs of a model on a machine: not what memory is free.
 */
function prepacks(outputs: Outputs): boolean {
  const order = topologicalOrder(Object.values(outputs));
  const products = order.filter((tensor) => isOp(tensor, "MatMul"));
  const matrices = new Set(products.map(({ inputs }) => inputs[1]!));
  const packed = [...matrices].filter((x) => isOp(x, "Parameter") && x.dtype === "F32");
  const bytes = packed.reduce((sum, x) => sum + bytesOf(x), 0);
  return /Intel/.test(cpus()[0]?.model ?? "") && bytes <= MOST_PACKED * totalmem();
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
    else bytes.set(name, await readBytes({ name, ...weight }));
  }
  return { folder, bytes };
}
