// What a web page runs to train on its devices: fetches a model folder with an adapter, builds the training graph, trains.

import type { OpenedModel } from "../../src/model/opened.ts";
import { decodeFloats, type Dtype } from "../../src/core/dtype.ts";
import { openWebEngine, type WebDeviceName } from "../../src/engines/onnxruntime/web.ts";
import { headerLength, parseHeader } from "../../src/files/safetensors-header.ts";
import { readModel } from "../../src/models/index.ts";
import { temperatures } from "../../src/insertions/temperatures.ts";
import { trainTemperatures } from "./train-temperatures.ts";

/** Losses of a model's steps on a device of the page. */
export async function finetune(folder: string, device: WebDeviceName, steps: number) {
  const files = new Map<string, Uint8Array<ArrayBuffer>>();
  const model = await fetchModel(folder, files);
  const blobs = Array.from(files, ([name, bytes]) => [name, new Blob([bytes])] as const);
  const runtime = new URL("/runtime/", document.baseURI).href;
  const engine = await openWebEngine(device, runtime, new Map(blobs));
  const { losses } = await trainTemperatures(engine, model, steps);
  return losses;
}

async function fetchBytes(url: string): Promise<Uint8Array<ArrayBuffer>> {
  const response = await fetch(url);
  if (!response.ok) throw new Error(`${url}: ${response.status}`);
  return new Uint8Array(await response.arrayBuffer());
}

async function fetchJson(url: string): Promise<Record<string, unknown>> {
  return (await (await fetch(url)).json()) as Record<string, unknown>;
}

/** A model folder with the adapter in its `ssa/default`; files are kept by their name. */
async function fetchModel(
  folder: string,
  files: Map<string, Uint8Array<ArrayBuffer>>,
): Promise<OpenedModel> {
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

async function fetchTensors(url: string, files: Map<string, Uint8Array<ArrayBuffer>>) {
  const bytes = await fetchBytes(url);
  const name = url.slice(url.lastIndexOf("/") + 1);
  files.set(name, bytes);
  const length = headerLength(name, bytes, bytes.length);
  const start = 8 + length;
  return parseHeader(name, bytes.subarray(8, start), bytes.length - start).tensors;
}
