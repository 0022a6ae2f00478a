// What a web page runs to fine-tune: fetches a model folder, builds the training graph, trains on onnxruntime-web.

import type * as OnnxRuntime from "onnxruntime-web";
import type { OpenedModel } from "../../src/model/open.ts";
import { decodeFloats, type Dtype } from "../../src/core/dtype.ts";
import { fixedShape } from "../../src/core/shape.ts";
import type { Engine, Feeds, Weight } from "../../src/engines/engine.ts";
import { targets, toOnnx } from "../../src/engines/onnx/onnx.ts";
import { headerLength, parseHeader } from "../../src/files/safetensors-header.ts";
import { leaves, type Outputs } from "../../src/graph/tensor.ts";
import { readModel } from "../../src/models/index.ts";
import { temperatures } from "../../src/insertions/temperatures.ts";
import { trainTemperatures } from "./train-temperatures.ts";

/** Losses of a model's steps on a provider of onnxruntime-web. */
export async function finetune(folder: string, provider: "wasm" | "webgpu", steps: number) {
  const files = new Map<string, Uint8Array>();
  const model = await fetchModel(folder, files);
  const engine = await webEngine(provider, files);
  const { losses } = await trainTemperatures(engine, model, steps);
  return losses;
}

async function fetchBytes(url: string): Promise<Uint8Array> {
  const response = await fetch(url);
  if (!response.ok) throw new Error(`${url}: ${response.status}`);
  return new Uint8Array(await response.arrayBuffer());
}

async function fetchJson(url: string): Promise<Record<string, unknown>> {
  return (await (await fetch(url)).json()) as Record<string, unknown>;
}

/** A model folder with the adapter in its `ssa/default`; files are kept by their URL. */
async function fetchModel(folder: string, files: Map<string, Uint8Array>): Promise<OpenedModel> {
  const configJson = await fetchJson(`${folder}/config.json`);
  const model = readModel("config.json", configJson);
  const base = await fetchTensors(`${folder}/model.safetensors`, files);
  const adapter = `${folder}/ssa/default`;
  const added = await fetchTensors(`${adapter}/ssa_adapter.safetensors`, files);
  const bytesOf = ({ file, offset, byteLength }: Range) =>
    files.get(file)!.slice(offset, offset + byteLength);
  return {
    name: "",
    folder,
    configJson,
    model,
    checkpoint: { files: [], tensors: new Map(), metadata: {}, absent: new Map() },
    weights: new Map(base.map((info) => [model.canonicalName(info.name) ?? info.name, info])),
    temperatures: {
      insertion: temperatures.fromJson(
        "ssa_config.json",
        await fetchJson(`${adapter}/ssa_config.json`),
      ),
      values: new Map(
        added.map((info) => [info.name, decodeFloats(info.dtype as Dtype, bytesOf(info))!]),
      ),
    },
  };
}

interface Range {
  readonly file: string;
  readonly offset: number;
  readonly byteLength: number;
}

async function fetchTensors(url: string, files: Map<string, Uint8Array>) {
  const bytes = await fetchBytes(url);
  files.set(url, bytes);
  const length = headerLength(url, bytes, bytes.length);
  const start = 8 + length;
  return parseHeader(url, bytes.subarray(8, start), bytes.length - start).tensors;
}

async function webEngine(
  provider: "wasm" | "webgpu",
  files: ReadonlyMap<string, Uint8Array>,
): Promise<Engine> {
  // By a variable: the page's server has it, the bundle does not.
  const url = "/runtime/ort.webgpu.min.mjs";
  const ort = (await import(url)) as typeof OnnxRuntime;
  ort.env.wasm.wasmPaths = "/runtime/";
  ort.env.wasm.numThreads = 1;
  const target = provider === "wasm" ? targets.cpu : targets.webgpu;
  const bytesOf = (weight: Weight) =>
    weight instanceof Uint8Array
      ? weight
      : files.get(weight.file)!.subarray(weight.offset, weight.offset + weight.byteLength);

  async function compile(outputs: Outputs, weights: ReadonlyMap<string, Weight>) {
    const model = toOnnx(outputs, (name) => bytesOf(weights.get(name)!), target);
    const session = await ort.InferenceSession.create(model, {
      executionProviders: [provider],
      extra: { session: { disable_cpu_ep_fallback: provider === "wasm" ? "0" : "1" } },
    });
    const inputs = leaves(outputs, "Input");
    const tensorOf = (name: string, data: Float32Array | BigInt64Array) => {
      const shape = fixedShape(inputs.get(name)!.shape);
      if (data instanceof Float32Array) return new ort.Tensor("float32", data, shape);
      return target.int64
        ? new ort.Tensor("int64", data, shape)
        : new ort.Tensor("int32", Int32Array.from(data, Number), shape);
    };
    return {
      run: async (feeds: Feeds) => {
        const tensors = Object.entries(feeds).map(([name, data]) => [name, tensorOf(name, data)]);
        const results = await session.run(Object.fromEntries(tensors));
        return Object.fromEntries(
          Object.entries(results).map(([name, { data }]) => [name, data as Float32Array]),
        );
      },
      dispose: () => session.release(),
    };
  }
  const has = {
    precisions: ["fp32"] as const,
    mapsWeights: false,
    lanes: 1,
    tiling: target.tiling,
  };
  const room = { host: 0, device: 0 };
  const estimate = () => room;
  const dispose = () => Promise.resolve();
  return { description: provider, ...has, room, estimate, compile, dispose };
}
