// Writes the ONNX files of a model in the layout that transformers.js and Optimum read: onnx/model.onnx, and
// onnx/model.onnx_data (_1, _2, ..) beside it where the weights are too large for one protobuf message.

import { mkdir } from "node:fs/promises";
import { join } from "node:path";
import type { Dtype } from "../core/dtype.ts";
import { boundWeights } from "../augmented/graph.ts";
import type { AugmentedModel } from "../augmented/open.ts";
import { targets, toOnnx, type WeightBytes } from "../engines/onnx.ts";
import { replaceFile, writeFileAtomic } from "../formats/atomic.ts";
import type { TensorInfo } from "../formats/safetensors.ts";
import { buildInferenceGraph } from "./inference-graph.ts";
import { byteLengthAs, bytesAs, streamAs } from "./weights.ts";

/** Of one file: a protobuf message ends at 2 GiB, and so do the buffers of browsers. */
const MAX_FILE_BYTES = 2e9;
/** Of a tensor in a data file, so that it can be mapped into memory on every system. */
const ALIGNMENT = 65536;

export interface OnnxOptions {
  /** f16: matrices and activations; vectors, norms, softmax, temperatures, logits and the cache stay F32. */
  readonly dtype: "f32" | "f16";
  readonly maxFileBytes?: number;
}

/** transformers.js's names: of the format, and the end of the file's name. */
const FORMATS = {
  f32: { name: "fp32", suffix: "" },
  f16: { name: "fp16", suffix: "_fp16" },
} as const;

/** Writes the files into `<folder>/onnx` and returns config.json's `transformers.js_config` for them. */
export async function writeOnnx(
  folder: string,
  augmented: AugmentedModel,
  { dtype, maxFileBytes = MAX_FILE_BYTES }: OnnxOptions,
): Promise<Readonly<Record<string, unknown>>> {
  const { name: dtypeName, suffix } = FORMATS[dtype];
  const file = `model${suffix}.onnx`;
  await mkdir(join(folder, "onnx"), { recursive: true });
  const weights = new Map(
    [...augmented.weights].map(([name, info]) => [name, { info, dtype: storedAs(info, dtype) }]),
  );
  // The graph takes a parameter's number format from its checkpoint: here, from what will be written.
  const retyped = new Map(
    [...weights].map(([name, { info, dtype }]) => [name, { ...info, dtype }] as const),
  );
  const outputs = buildInferenceGraph(
    { ...augmented, weights: retyped },
    dtype === "f16" ? "fp16" : "fp32",
  );

  const sizes = [...weights.values()].map(({ info, dtype }) => byteLengthAs(info, dtype));
  const isInline = sizes.reduce((sum, size) => sum + size, 0) <= maxFileBytes;
  const bytes = new Map<string, WeightBytes>();
  for (const [name, weight] of boundWeights(augmented))
    if (weight instanceof Uint8Array) bytes.set(name, weight);
  let numDataFiles = 0;
  if (isInline)
    for (const [name, { info, dtype }] of weights) bytes.set(name, await bytesAs(info, dtype));
  else
    for (const group of dataFiles(weights, maxFileBytes)) {
      const location = `${file}_data${numDataFiles === 0 ? "" : `_${numDataFiles}`}`;
      await writeData(join(folder, "onnx", location), group);
      for (const { name, offset, byteLength } of group)
        bytes.set(name, { location, offset, byteLength });
      numDataFiles++;
    }
  // Plain ops only: the clients' WebGPU provider has no FusedMatMul.
  const model = toOnnx(outputs, (name) => bytes.get(name)!, targets.portable);
  await writeFileAtomic(join(folder, "onnx", file), model);
  return { dtype: dtypeName, ...(numDataFiles > 0 && { use_external_data_format: numDataFiles }) };
}

/** Vectors (norms, biases) are too small to matter and the most sensitive. */
function storedAs({ shape }: TensorInfo, dtype: OnnxOptions["dtype"]): Dtype {
  return dtype === "f16" && shape.length > 1 ? "F16" : "F32";
}

interface DataTensor {
  readonly name: string;
  readonly info: TensorInfo;
  readonly dtype: Dtype;
  readonly offset: number;
  readonly byteLength: number;
}

/** Distributes the weights over files, in order; a file holds at least one. */
function dataFiles(
  weights: ReadonlyMap<string, { readonly info: TensorInfo; readonly dtype: Dtype }>,
  maxFileBytes: number,
): DataTensor[][] {
  const files: DataTensor[][] = [[]];
  let end = 0;
  for (const [name, { info, dtype }] of weights) {
    const byteLength = byteLengthAs(info, dtype);
    let offset = Math.ceil(end / ALIGNMENT) * ALIGNMENT;
    if (offset > 0 && offset + byteLength > maxFileBytes) {
      files.push([]);
      offset = 0;
    }
    files.at(-1)!.push({ name, info, dtype, offset, byteLength });
    end = offset + byteLength;
  }
  return files;
}

async function writeData(path: string, tensors: readonly DataTensor[]): Promise<void> {
  await replaceFile(path, async (handle) => {
    let position = 0;
    for (const { info, dtype, offset } of tensors) {
      await handle.writeFile(new Uint8Array(offset - position));
      position = offset;
      for await (const chunk of streamAs(info, dtype)) {
        await handle.writeFile(chunk);
        position += chunk.length;
      }
    }
  });
}
