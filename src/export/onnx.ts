// Writes a model in the layout that transformers.js and Optimum read: onnx/model.onnx, and onnx/model.onnx_data (_1,
// _2, ..) beside it where the weights are too large for one protobuf message. Its graph generates text: any batch and
// length, past keys and values in, present ones out, under those programs' names. The temperatures are inside, and a
// token's position is what position_ids says, so it is right behind a cache and behind left padding.
// B = batch, T = sequence, P = past, S = P + T keys, K = key-value heads, H = head dim, V = vocabulary

import { join } from "node:path";
import type { Dtype, Precision } from "../core/dtype.ts";
import { targets, toOnnx, type WeightBytes } from "../engines/onnx/onnx.ts";
import { replaceFile, writeFileAtomic, makeFolder } from "../files/atomic.ts";
import type { TensorInfo } from "../files/safetensors.ts";
import * as g from "../graph/build.ts";
import { simplify, verify } from "../graph/passes.ts";
import type { Outputs, Tensor } from "../graph/tensor.ts";
import { boundWeights, buildForward, logitsOf } from "../model/graph.ts";
import type { OpenedModel } from "../model/opened.ts";
import type { AttentionHooks } from "../nn/attention.ts";
import { givenPositions, MASKED } from "../nn/positions.ts";
import type { ConvertOptions } from "./convert.ts";
import { writeCompanions } from "./model-folder.ts";
import { plainConfig } from "./transformers.ts";
import { byteLengthAs, bytesAs, streamAs } from "../model/weights.ts";

/** Of one file: a protobuf message ends at 2 GiB, and so do the buffers of browsers. */
const MAX_FILE_BYTES = 2e9;
/** Of a tensor in a data file, so that it can be mapped into memory on every system. */
const ALIGNMENT = 65536;

/**
 * Writes the folder; with fp16, matrices and activations are, but vectors, norms, softmax, temperatures, logits and the
 * cache stay F32.
 */
export async function writeOnnx(
  folder: string,
  opened: OpenedModel,
  { dtype: asked, maxFileBytes = MAX_FILE_BYTES }: Pick<ConvertOptions, "dtype" | "maxFileBytes">,
): Promise<void> {
  // transformers.js's names, of the format and of the file.
  const precision = asked === "fp16" ? asked : "fp32";
  const file = precision === "fp16" ? "model_fp16.onnx" : "model.onnx";
  await makeFolder(join(folder, "onnx"));
  const weights = [...opened.weights].map(([name, info]): Stored => {
    // Vectors (norms, biases) are too small to matter and the most sensitive.
    const dtype = precision === "fp16" && info.shape.length > 1 ? "F16" : "F32";
    return { name, info, dtype, byteLength: byteLengthAs(info, dtype) };
  });
  // The graph takes a parameter's number format from its checkpoint: here, from what will be written.
  const stored = { file: "", offset: 0 };
  const retyped = new Map(
    weights.map((of) => [of.name, { ...of, ...stored, shape: of.info.shape }]),
  );
  const outputs = inferenceGraph({ ...opened, weights: retyped }, precision);

  const bytes = new Map<string, WeightBytes>();
  for (const [name, weight] of boundWeights(opened))
    if (weight instanceof Uint8Array) bytes.set(name, weight);
  const isInline = weights.reduce((sum, { byteLength }) => sum + byteLength, 0) <= maxFileBytes;
  if (isInline)
    for (const { name, info, dtype } of weights) bytes.set(name, await bytesAs(info, dtype));
  const groups = isInline ? [] : dataFiles(weights, maxFileBytes);
  for (const [i, group] of groups.entries()) {
    const location = `${file}_data${i === 0 ? "" : `_${i}`}`;
    await replaceFile(join(folder, "onnx", location), async (handle) => {
      let position = 0;
      for (const { name, info, dtype, offset, byteLength } of group) {
        bytes.set(name, { location, offset, byteLength });
        await handle.writeFile(new Uint8Array(offset - position));
        for await (const chunk of streamAs(info, dtype)) await handle.writeFile(chunk);
        position = offset + byteLength;
      }
    });
  }
  // Plain ops only: the clients' WebGPU provider has no FusedMatMul.
  const model = toOnnx(outputs, (name) => bytes.get(name)!, targets.portable);
  await writeFileAtomic(join(folder, "onnx", file), model);
  const external = !isInline && { use_external_data_format: groups.length };
  const settings = { "transformers.js_config": { dtype: precision, ...external } };
  await writeCompanions(opened.folder, folder, { ...plainConfig(opened.configJson), ...settings });
}

/** A weight in the format in which it will be written. */
interface Stored {
  readonly name: string;
  readonly info: TensorInfo;
  readonly dtype: Dtype;
  readonly byteLength: number;
}

/** Distributes the weights over files, in order; a file holds at least one. */
function dataFiles(weights: readonly Stored[], maxFileBytes: number) {
  const files: (Stored & { readonly offset: number })[][] = [[]];
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

// transformers.js makes the empty cache from these names: `batch_size` it knows, others are 0.
const [B, T, P] = ["batch_size", "sequence_length", "past_sequence_length"] as const;
const S = `${P} + ${T}`;

/** What it counts the positions of these families from, instead of 0. */
const FIRST_POSITIONS: Readonly<Record<string, number>> = { gemma3_text: 1 };

/**
 * `logits` [B, T, V] and `present.{layer}.key|value` [B, K, S, H] from `input_ids` and `position_ids` [B, T],
 * `attention_mask` [B, S] and `past_key_values.{layer}.key|value` [B, K, P, H].
 */
function inferenceGraph(opened: OpenedModel, precision: Precision): Outputs {
  const { maxCached, config } = opened.model;
  const { numKeyValueHeads: K, headDim: H } = config;
  const ids = g.input("input_ids", [B, T], "I64");
  const given = g.input("position_ids", [B, T], "I64");
  const first = FIRST_POSITIONS[String(opened.configJson["model_type"])] ?? 0;
  const positionIds = first === 0 ? given : g.sub(given, g.integers([first], []));
  const attention = g.input("attention_mask", [B, S], "I64");
  const mask = (window: number) => additiveMask(attention, positionIds, window);
  const positions = givenPositions(positionIds, mask, maxCached);
  const presents: Record<string, Tensor> = {};
  const joined = (name: string, present: Tensor) => {
    const past = g.input(`past_key_values.${name}`, [B, K, P, H], "F32");
    presents[`present.${name}`] = g.concat([past, g.cast(present, "F32")], 2);
    return g.cast(presents[`present.${name}`]!, present.dtype);
  };
  const cache: AttentionHooks["cache"] = (layer, { key, value }) => ({
    key: joined(`${layer}.key`, key),
    value: joined(`${layer}.value`, value),
  });
  const graph = buildForward(opened, { ids, positions }, { precision, hooks: { cache } });
  const outputs = simplify({ logits: g.cast(logitsOf(graph), "F32"), ...presents });
  verify(outputs);
  return outputs;
}

/** 0 where a query may see a key: a real token at its own position or less than `window` before; [B, 1, T, S]. */
function additiveMask(attention_BS: Tensor, positionIds_BT: Tensor, window: number): Tensor {
  const one = g.integers([1], []);
  const keys = g.reshape(g.sub(g.cumSum(attention_BS), one), [B, 1, 1, S]);
  const queries = g.reshape(positionIds_BT, [B, 1, T, 1]);
  const isPast = g.lessOrEqual(keys, queries);
  const isReal = g.lessOrEqual(one, g.reshape(attention_BS, [B, 1, 1, S]));
  const isNear = () => g.lessOrEqual(g.sub(queries, g.integers([window - 1], [])), keys);
  const isPastAndReal = g.and(isPast, isReal);
  const isSeen = window < Infinity ? g.and(isPastAndReal, isNear()) : isPastAndReal;
  return g.where(isSeen, g.scalar(0), g.scalar(MASKED));
}
