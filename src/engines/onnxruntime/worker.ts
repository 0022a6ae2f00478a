// Owns the sessions of ONNX Runtime, whose calls block the thread they are made on.

import { parentPort } from "node:worker_threads";
import { InferenceSession, Tensor } from "onnxruntime-node";
import { invariant, messageOf } from "../../core/errors.ts";
import type { Feeds } from "../engine.ts";

export interface Compile {
  readonly model: Uint8Array;
  readonly options: InferenceSession.SessionOptions;
  readonly inputs: ReadonlyMap<string, InputFormat>;
  /** Shared with the caller; each run overwrites them. */
  readonly outputs: ReadonlyMap<string, { data: Float32Array; shape: readonly number[] }>;
}

/** Compiles a program, which is known by the request's number, or runs one with feeds; null releases it. */
export type WorkerRequest = Compile | { readonly program: number; readonly feeds: Feeds | null };

/** What went wrong; null: a request is done, each in its turn, or at first, unasked: the native code is loaded. */
export type WorkerReply = string | null;

export interface InputFormat {
  readonly shape: readonly number[];
  readonly type: "float32" | "int64" | "int32";
}

const programs = new Map<number, (feeds: Feeds | null) => Promise<void>>();

async function handle(id: number, request: WorkerRequest): Promise<void> {
  if ("model" in request) return void programs.set(id, await compile(request));
  const program = programs.get(request.program);
  invariant(program, `no program ${request.program}`);
  if (!request.feeds) programs.delete(request.program);
  return program(request.feeds);
}

async function compile({ model, options, inputs, outputs }: Compile) {
  const session = await InferenceSession.create(model, options);
  // Buffers of the outputs' sizes: ONNX Runtime writes to them directly, but takes no shared memory.
  const fetches = Object.fromEntries(
    [...outputs].map(([name, { data, shape }]) => [
      name,
      new Tensor("float32", new Float32Array(data.length), shape),
    ]),
  );
  /** Of inputs in shared memory, which is as little taken. */
  const copies = new Map<string, Float32Array>();
  const unshared = (name: string, data: Float32Array) => {
    const copy = copies.get(name) ?? new Float32Array(data.length);
    copy.set(data);
    copies.set(name, copy);
    return copy;
  };
  return async (feeds: Feeds | null) => {
    if (!feeds) return session.release();
    const tensors = Object.entries(feeds).map(([name, data]) => {
      const format = inputs.get(name);
      invariant(format, `no input ${name}`);
      const isShared = data instanceof Float32Array && data.buffer instanceof SharedArrayBuffer;
      return [name, tensorOf(isShared ? unshared(name, data) : data, format)] as const;
    });
    await session.run(Object.fromEntries(tensors), fetches);
    for (const [name, { data }] of outputs) data.set(fetches[name]!.data);
  };
}

function tensorOf(data: Float32Array | BigInt64Array, { shape, type }: InputFormat): Tensor {
  if (data instanceof Float32Array) return new Tensor("float32", data, shape);
  return type === "int32"
    ? new Tensor(type, Int32Array.from(data, Number), shape)
    : new Tensor("int64", data, shape);
}

invariant(parentPort, "this file is a worker's");
const port = parentPort;
const reply = (error: WorkerReply) => port.postMessage(error);
let queue = Promise.resolve();
port.on("message", ({ id, request }: { id: number; request: WorkerRequest }) => {
  // One at a time: a session must not be released, nor a second one run, while one runs.
  queue = queue.then(() =>
    handle(id, request).then(
      () => reply(null),
      (error: unknown) => reply(messageOf(error)),
    ),
  );
});
reply(null);
