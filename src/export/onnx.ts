// Writes the ONNX files of a model in the layout that transformers.js and Optimum read: onnx/model.onnx, and
// onnx/model.onnx_data (_1, _2, ..) beside it where the weights are too large for one protobuf message.

import { mkdir } from "node:fs/promises";
import { join } from "node:path";
import type { Dtype } from "../core/dtype.ts";
import { boundWeights } from "../model/graph.ts";
import type { OpenedModel } from "../model/open.ts";
import { targets, toOnnx, type WeightBytes } from "../engines/onnx/onnx.ts";
import { replaceFile, writeFileAtomic } from "../files/atomic.ts";
import type { TensorInfo } from "../files/safetensors.ts";
import { buildInferenceGraph } from "./inference-graph.ts";
import { byteLengthAs, bytesAs, streamAs } from "./weights.ts";

/** Of one file: a protobuf message ends at 2 GiB, and so do the buffers of browsers. */
const MAX_FILE_BYTES = 2e9;
/** Of a tensor in a data file, so that it can be mapped into memory on every system. */
const ALIGNMENT = 65536;

export interface OnnxOptions {
  /** fp16: matrices and activations; vectors, norms, softmax, temperatures, logits and the cache stay F32. */
  readonly precision: "fp32" | "fp16";
  readonly maxFileBytes?: number | undefined;
}

/** Writes the files into `<folder>/onnx` and returns config.json's `transformers.js_config` for them. */
export async function writeOnnx(
  folder: string,
  opened: OpenedModel,
  { precision, maxFileBytes = MAX_FILE_BYTES }: OnnxOptions,
): Promise<Readonly<Record<string, unknown>>> {
  // transformers.js's names, of the file and of the format below.
  const file = precision === "fp16" ? "model_fp16.onnx" : "model.onnx";
  await mkdir(join(folder, "onnx"), { recursive: true });
  const weights = [...opened.weights].map(([name, info]): Stored => {
    const stored = storedAs(info, precision);
    return { name, info, dtype: stored, byteLength: byteLengthAs(info, stored) };
  });
  // The graph takes a parameter's number format from its checkpoint: here, from what will be written.
  const retyped = new Map(weights.map(({ name, info, dtype }) => [name, { ...info, dtype }]));
  const outputs = buildInferenceGraph({ ...opened, weights: retyped }, precision);

  const bytes = new Map<string, WeightBytes>();
  for (const [name, weight] of boundWeights(opened))
    if (weight instanceof Uint8Array) bytes.set(name, weight);
  const isInline = weights.reduce((sum, { byteLength }) => sum + byteLength, 0) <= maxFileBytes;
  const groups = isInline ? [] : dataFiles(weights, maxFileBytes);
  if (isInline)
    for (const { name, info, dtype } of weights) bytes.set(name, await bytesAs(info, dtype));
  for (const [i, group] of groups.entries()) {
    const location = `${file}_data${i === 0 ? "" : `_${i}`}`;
    await writeData(join(folder, "onnx", location), group);
    for (const { name, offset, byteLength } of group)
      bytes.set(name, { location, offset, byteLength });
  }
  // Plain ops only: the clients' WebGPU provider has no FusedMatMul.
  const model = toOnnx(outputs, (name) => bytes.get(name)!, targets.portable);
  await writeFileAtomic(join(folder, "onnx", file), model);
  return { dtype: precision, ...(!isInline && { use_external_data_format: groups.length }) };
}

/** Vectors (norms, biases) are too small to matter and the most sensitive. */
function storedAs({ shape }: TensorInfo, precision: OnnxOptions["precision"]): Dtype {
  return precision === "fp16" && shape.length > 1 ? "F16" : "F32";
}

/** A weight in the format in which it will be written. */
interface Stored {
  readonly name: string;
  readonly info: TensorInfo;
  readonly dtype: Dtype;
  readonly byteLength: number;
}

type Placed = Stored & { readonly offset: number };

/** Distributes the weights over files, in order; a file holds at least one. */
function dataFiles(weights: readonly Stored[], maxFileBytes: number): Placed[][] {
  const files: Placed[][] = [[]];
  let end = 0;
  for (const weight of weights) {
    let offset = Math.ceil(end / ALIGNMENT) * ALIGNMENT;
    if (offset > 0 && offset + weight.byteLength > maxFileBytes) {
      files.push([]);
      offset = 0;
    }
    files.at(-1)!.push({ ...weight, offset });
    end = offset + weight.byteLength;
  }
  return files;
}

async function writeData(path: string, tensors: readonly Placed[]): Promise<void> {
  await replaceFile(path, async (handle) => {
    let position = 0;
    for (const { info, dtype, offset, byteLength } of tensors) {
      await handle.writeFile(new Uint8Array(offset - position));
      for await (const chunk of streamAs(info, dtype)) await handle.writeFile(chunk);
      position = offset + byteLength;
    }
  });
}
