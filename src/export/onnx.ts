// Writes a model in the layout that transformers.js and Optimum read: onnx/model.onnx, and onnx/model.onnx_data (_1,
// _2, ..) beside it where the weights are too large for one protobuf message. Its graph generates text: any batch and
// length, past keys and values in, present ones out, under those programs' names. The temperatures are inside, and a
// token's position is what position_ids says, so it is right behind a cache and behind left padding.
// B = batch, T = sequence, P = past, S = P + T keys, K = key-value heads, H = head dim, V = vocabulary

import { open } from "node:fs/promises";
import { join } from "node:path";
import type { Dtype, ExportFormat, Precision } from "../core/dtype.ts";
import { UserError } from "../core/errors.ts";
import { encodePieces, type LateBytes } from "../core/protobuf.ts";
import { lowered, targets, type WeightBytes, type WeightOf } from "../engines/onnx/onnx.ts";
import { makeFolder, replaceFile } from "../files/atomic.ts";
import { streamBytes, type TensorInfo } from "../files/safetensors.ts";
import * as g from "../graph/build.ts";
import { simplify, verify } from "../graph/passes.ts";
import type { Outputs, Tensor } from "../graph/tensor.ts";
import { isBlocked, partsOf } from "../model/blocks.ts";
import { boundWeights, buildForward, logitsOf } from "../model/graph.ts";
import type { OpenedModel } from "../model/opened.ts";
import type { AttentionHooks } from "../nn/attention.ts";
import { givenPositions, MASKED } from "../nn/positions.ts";
import type { ConvertOptions } from "./convert.ts";
import { writeCompanions } from "./model-folder.ts";
import { plainConfig } from "./transformers.ts";
import { byteLengthAs, streamAs } from "../model/weights.ts";

/** Of one file: a protobuf message ends at 2 GiB, and so do the buffers of browsers. */
const MAX_FILE_BYTES = 2e9;
/** transformers.js's own limit. */
const MAX_FILES = 100;
/** Of a tensor in a data file, so that it can be mapped into memory on every system. */
const ALIGNMENT = 65536;

/** What transformers.js appends to a file's name; of activations and of what is in no blocks; of the codes of blocks. */
type Format = Readonly<{ suffix: string; precision: Precision; bits?: 4 | 8 }>;

const formats = {
  fp32: { suffix: "", precision: "fp32" },
  fp16: { suffix: "_fp16", precision: "fp16" },
  q8: { suffix: "_quantized", precision: "fp32", bits: 8 },
  q4: { suffix: "_q4", precision: "fp32", bits: 4 },
  q4f16: { suffix: "_q4f16", precision: "fp16", bits: 4 },
} as const satisfies Record<Exclude<ExportFormat, "bf16">, Format>;

/** F32 by default; bf16 no client computes with. */
export const formatOf = (dtype: ExportFormat | undefined): Format =>
  formats[dtype === undefined || dtype === "bf16" ? "fp32" : dtype];

/**
 * Writes the folder; with fp16, matrices and activations are, but vectors, norms, softmax, temperatures, logits and the
 * cache stay F32. Blocks of a quantised model stay what they are. Weights are read as they are written. Gives what reads
 * all files again, and says whether they hold what was to be written.
 */
export async function writeOnnx(
  folder: string,
  opened: OpenedModel,
  { dtype = "fp32", maxFileBytes = MAX_FILE_BYTES }: Pick<ConvertOptions, "dtype" | "maxFileBytes">,
): Promise<() => Promise<boolean>> {
  const { precision, suffix } = formatOf(dtype);
  const file = `model${suffix}.onnx`;
  const { quantized, ...plain } = opened;
  const infos = [...(quantized ?? opened).weights.values()].map((info): TensorInfo => {
    if (quantized && isBlocked(info)) return info;
    // Vectors (norms, biases) are too small to matter and the most sensitive.
    const dtype = precision === "fp16" && info.shape.length > 1 ? "F16" : "F32";
    const { name, shape, file, offset } = info;
    return { name, shape, file, offset, dtype, byteLength: byteLengthAs(info, dtype) };
  });
  // The graph takes a parameter's number format from its checkpoint: here, from what will be written.
  const weights = new Map(infos.map((info) => [info.name, info]));
  const outputs = inferenceGraph({ ...plain, weights }, precision);

  const offsets = new Set<string>();
  const stored = infos.flatMap((info) => storedAs(opened, info, offsets));
  const total = stored.reduce((sum, { byteLength }) => sum + byteLength, 0);
  const isInline = total <= Math.min(maxFileBytes, MAX_FILE_BYTES);
  const { places, contents } = dataFiles(isInline ? [] : stored, file, maxFileBytes);
  const numFiles = contents.size;
  if (numFiles > MAX_FILES)
    throw new UserError(`${numFiles} files of weights, transformers.js takes ${MAX_FILES}`, {
      hint: "choose a larger --max-shard-size",
    });
  const inserted = [...boundWeights(opened)].filter(([, weight]) => weight instanceof Uint8Array);
  const bytes = new Map([
    ...(inserted as [string, Uint8Array][]),
    ...stored.map((weight) => [weight.name, weight] as const),
    ...places,
  ]);
  const weightOf: WeightOf = (name, isOffset) => {
    if (isOffset) offsets.add(name);
    return bytes.get(name)!;
  };
  // Ops that the clients' processor and WebGPU both have: no FusedMatMul.
  contents.set(file, encodePieces(lowered(outputs, weightOf, targets.portable)));
  const data = join(folder, "onnx");
  await makeFolder(data);
  for (const [name, pieces] of contents)
    await replaceFile(join(data, name), async (handle) => {
      for await (const chunk of chunksOf(pieces)) await handle.writeFile(chunk); // unlike write, all of it
    });
  const external = !isInline && { use_external_data_format: numFiles };
  const settings = { "transformers.js_config": { dtype, ...external } };
  await writeCompanions(opened, folder, { ...plainConfig(opened.configJson), ...settings });
  return async () => {
    for (const [name, pieces] of contents) {
      await using handle = await open(join(data, name));
      for await (const chunk of chunksOf(pieces)) {
        const { buffer, bytesRead } = await handle.read(new Uint8Array(chunk.length));
        if (bytesRead < chunk.length || Buffer.compare(buffer, chunk) !== 0) return false;
      }
    }
    return true;
  };
}

/** A parameter of the graph in the format in which it will be written. */
interface Stored extends LateBytes {
  readonly name: string;
}

/** What a weight becomes; codes of 4 or 8 bits whose name is among `offsets` as they are written begin at 0. */
function storedAs(
  { weights }: OpenedModel,
  info: TensorInfo,
  offsets: ReadonlySet<string>,
): Stored[] {
  const { name } = info;
  if (!isBlocked(info)) {
    const [source, dtype] = [weights.get(name)!, info.dtype as Dtype];
    return [{ name, byteLength: info.byteLength, stream: () => streamAs(source, dtype) }];
  }
  // The highest bit of each code: two's complement plus half of its range.
  const flip = info.bits === 4 ? 0x88 : 0x80;
  return partsOf(info).map((part): Stored => {
    const stream = async function* () {
      for await (const chunk of streamBytes(part))
        yield offsets.has(part.name) ? chunk.map((byte) => byte ^ flip) : chunk;
    };
    return { name: part.name, byteLength: part.byteLength, stream };
  });
}

async function* chunksOf(pieces: readonly (Uint8Array | LateBytes)[]) {
  for (const piece of pieces)
    if (piece instanceof Uint8Array) yield piece;
    else yield* piece.stream();
}

/** Distributes weights over files, in order; a file holds at least one. Gives where each lies, and what each file holds. */
function dataFiles(weights: readonly Stored[], file: string, maxFileBytes: number) {
  const places = new Map<string, WeightBytes>();
  const contents = new Map<string, (Uint8Array | LateBytes)[]>();
  let location = "";
  let end = Infinity;
  for (const weight of weights) {
    const { name, byteLength } = weight;
    let offset = Math.ceil(end / ALIGNMENT) * ALIGNMENT;
    if (offset > 0 && offset + byteLength > maxFileBytes) {
      location = `${file}_data${contents.size === 0 ? "" : `_${contents.size}`}`;
      contents.set(location, []);
      offset = end = 0;
    }
    contents.get(location)!.push(new Uint8Array(offset - end), weight);
    places.set(name, { location, offset, byteLength });
    end = offset + byteLength;
  }
  return { places, contents };
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
