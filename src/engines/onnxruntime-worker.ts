// Owns the sessions of ONNX Runtime, whose calls block the thread they are made on.

import { parentPort } from "node:worker_threads";
import { InferenceSession, Tensor } from "onnxruntime-node";
import { invariant, messageOf } from "../core/errors.ts";
import type { Feeds } from "./engine.ts";

export type WorkerRequest =
  | {
      readonly kind: "compile";
      readonly model: Uint8Array;
      readonly options: InferenceSession.SessionOptions;
      readonly inputs: ReadonlyMap<string, readonly number[]>;
      /** Shared with the caller; each run overwrites them. */
      readonly outputs: ReadonlyMap<string, { data: Float32Array; shape: readonly number[] }>;
    }
  | { readonly kind: "run"; readonly program: number; readonly feeds: Feeds }
  | { readonly kind: "release"; readonly program: number };

export type WorkerReply =
  | { readonly id: number; readonly result: number }
  | { readonly id: number; readonly error: string };

interface Program {
  readonly session: InferenceSession;
  readonly inputs: ReadonlyMap<string, readonly number[]>;
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
      const shape = program.inputs.get(name);
      invariant(shape, `no input ${name}`);
      const tensor =
        data instanceof Float32Array ? floats(data, shape) : new Tensor("int64", data, shape);
      return [name, tensor] as const;
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
