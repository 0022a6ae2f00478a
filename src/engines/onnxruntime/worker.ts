// Owns the sessions of ONNX Runtime, whose calls block the thread they are made on.

import { parentPort } from "node:worker_threads";
import { InferenceSession, Tensor } from "onnxruntime-node";
import { invariant, messageOf } from "../../core/errors.ts";
import type { Feeds } from "../engine.ts";

export type WorkerRequest =
  | {
      readonly kind: "compile";
      readonly model: Uint8Array;
      readonly options: InferenceSession.SessionOptions;
      readonly inputs: ReadonlyMap<string, InputFormat>;
      /** Shared with the caller; each run overwrites them. */
      readonly outputs: ReadonlyMap<string, { data: Float32Array; shape: readonly number[] }>;
    }
  | { readonly kind: "run"; readonly program: number; readonly feeds: Feeds }
  | { readonly kind: "release"; readonly program: number };

export type WorkerReply =
  | { readonly id: number; readonly result: number }
  | { readonly id: number; readonly error: string };

export interface InputFormat {
  readonly shape: readonly number[];
  readonly type: "float32" | "int64" | "int32";
}

interface Program {
  readonly session: InferenceSession;
  readonly inputs: ReadonlyMap<string, InputFormat>;
  readonly outputs: Extract<WorkerRequest, { kind: "compile" }>["outputs"];
  /** Buffers of the outputs' sizes: ONNX Runtime writes to them directly, but takes no shared memory. */
  readonly fetches: Readonly<Record<string, Tensor>>;
}

const programs = new Map<number, Program>();

async function handle(id: number, request: WorkerRequest): Promise<number> {
  if (request.kind === "compile") {
    const session = await InferenceSession.create(request.model, request.options);
    const fetches = Object.fromEntries(
      [...request.outputs].map(([name, { data, shape }]) => [
        name,
        floats(new Float32Array(data.length), shape),
      ]),
    );
    programs.set(id, { session, inputs: request.inputs, outputs: request.outputs, fetches });
    return id;
  }
  const program = programs.get(request.program);
  invariant(program, `no program ${request.program}`);
  if (request.kind === "run") {
    const feeds = Object.entries(request.feeds).map(([name, data]) => {
      const format = program.inputs.get(name);
      invariant(format, `no input ${name}`);
      return [name, tensorOf(data, format)] as const;
    });
    await program.session.run(Object.fromEntries(feeds), program.fetches);
    for (const [name, { data }] of program.outputs)
      data.set(program.fetches[name]!.data as Float32Array);
  } else {
    programs.delete(request.program);
    await program.session.release();
  }
  return request.program;
}

function tensorOf(data: Float32Array | BigInt64Array, { shape, type }: InputFormat): Tensor {
  if (data instanceof Float32Array) return floats(data, shape);
  return type === "int32"
    ? new Tensor(type, Int32Array.from(data, Number), shape)
    : new Tensor("int64", data, shape);
}

const floats = (data: Float32Array, shape: readonly number[]) => new Tensor("float32", data, shape);

invariant(parentPort, "this file is a worker's");
const port = parentPort;
let queue = Promise.resolve();
port.on("message", ({ id, request }: { id: number; request: WorkerRequest }) => {
  // One at a time: a session must not be released, nor a second one run, while one runs.
  queue = queue.then(async () => {
    const reply: WorkerReply = await handle(id, request).then(
      (result) => ({ id, result }),
      (error: unknown) => ({ id, error: messageOf(error) }),
    );
    port.postMessage(reply);
  });
});
// Unasked: the native code is loaded.
port.postMessage({ id: -1, result: 0 } satisfies WorkerReply);
