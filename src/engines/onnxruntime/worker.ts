// Owns the sessions of ONNX Runtime, whose calls block the thread they are made on.

import { InferenceSession, Tensor } from "onnxruntime-node";
import { invariant } from "../../core/errors.ts";
import { answerQueue } from "../../core/worker.ts";
import type { Feeds } from "../engine.ts";
import type { InputFormat } from "./session.ts";

interface Compile {
  readonly model: Uint8Array;
  readonly options: InferenceSession.SessionOptions;
  readonly inputs: ReadonlyMap<string, InputFormat>;
  /** Shared with the caller; each run overwrites them. */
  readonly outputs: ReadonlyMap<string, { data: Float32Array; shape: readonly number[] }>;
}

/** Compiles a program and gives its number, or runs one with feeds; null releases it. */
export type WorkerRequest = Compile | { readonly program: number; readonly feeds: Feeds | null };

const programs = new Map<number, Awaited<ReturnType<typeof compile>>>();
let count = 0;

// One at a time: a session must not be released, nor a second one run, while one runs.
answerQueue(async (request: WorkerRequest) => {
  if ("model" in request) {
    programs.set(++count, await compile(request));
    return count;
  }
  const program = programs.get(request.program);
  invariant(program, `no program ${request.program}`);
  if (!request.feeds) programs.delete(request.program);
  return program(request.feeds);
});

async function compile({ model, options, inputs, outputs }: Compile) {
  const session = await InferenceSession.create(model, options);
  // Buffers of the outputs' sizes: ONNX Runtime writes to them directly, but takes no shared memory.
  const buffers = Array.from(outputs, ([name, { data, shape }]) => {
    return [name, new Tensor("float32", new Float32Array(data.length), shape)] as const;
  });
  const fetches = Object.fromEntries(buffers);
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
