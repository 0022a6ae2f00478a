// A base whose matrices are blocks of integers, made once and kept in the cache: tensor by tensor, in bounded memory.

import { createHash } from "node:crypto";
import { decodeFloats } from "../core/dtype.ts";
import { join } from "node:path";
import { UserError } from "../core/errors.ts";
import { makeFolder, replaceFolder } from "../files/atomic.ts";
import { readJsonIfSound, writeJson } from "../files/json.ts";
import { modelFiles } from "../files/names.ts";
import * as files from "../files/safetensors.ts";
import type { TensorInfo, TensorSource } from "../files/safetensors.ts";
import * as blocks from "./blocks.ts";
import { weightDtype } from "./graph.ts";
import { isPacked, relaid } from "./packed.ts";
import type { OpenedModel } from "./opened.ts";
import { type Places, placesOf } from "./places.ts";
import { streamAs } from "./weights.ts";

/** Another text where the same weights would become another file. */
const FORMAT = "1";
/** Beside the weights: their SHA-256, by which a damaged copy is noticed. */
const SEAL = "seal.json";

/** The model as it will be computed with, its blocks in no file yet. */
export function planBlocks(opened: OpenedModel, spec: blocks.Quantization): OpenedModel {
  const { model, name: base, folder, quantized } = opened;
  const by = quantized && blocks.describeQuantization(quantized.spec);
  if (by)
    throw new UserError(`${base} is quantised already: ${by}`, {
      hint: "leave out --quantize, or take the checkpoint that it was quantised from",
    });
  const weights = new Map<string, TensorInfo>();
  for (const [name, info] of opened.weights) {
    const group = model.groupOf(name);
    const isHead = spec.head && [model.inputEmbedding, model.outputEmbedding].includes(name);
    const bits = group === "matrices" ? spec.bits : 8;
    const shift = spec.zeroPoints ? "zeroPoints" : null;
    const isPlanned = !blocks.isBlocked(info) && (group === "matrices" || isHead);
    weights.set(name, (isPlanned && blocks.blocked(info, bits, spec.block, shift)) || info);
  }
  if ([...weights.values()].some(blocks.isBlocked))
    return { ...opened, quantized: { spec, weights } };
  throw new UserError(`no matrix of ${folder} has rows of whole blocks of ${spec.block}`, {
    hint: "use a smaller --quantize-block, or leave it as it is: --quantize none, --dtype fp16",
  });
}

/**
 * The model with its matrices in blocks, from the cache or made now: quantised as asked for, or as others have quantised
 * it; as it is where neither is.
 */
export async function withBlocks(
  opened: OpenedModel,
  spec: blocks.Quantization | null,
  { cacheDir = placesOf({}).cacheDir, onNote }: Partial<Pick<Places, "cacheDir" | "onNote">>,
): Promise<OpenedModel> {
  const planned = spec ? planBlocks(opened, spec) : opened;
  if (!planned.quantized) return opened;
  const { spec: of, weights: plan } = planned.quantized;
  const packed = [...plan.values()].find(isPacked)?.from.json;
  if (!spec && !packed) return opened; // a GGUF file's, which lie in blocks already
  const sha256 = await files.modelSha256(opened.checkpoint);
  const basis = JSON.stringify([FORMAT, sha256, of, ...(packed ? [packed] : [])]);
  const cache = join(cacheDir, "quantized");
  const folder = join(cache, createHash("sha256").update(basis).digest("hex"));
  if (!(await isSound(folder))) {
    onNote?.(`${opened.name} is ${packed ? "laid out" : "quantised"} once, into ${folder}`);
    await makeFolder(cache);
    await replaceFolder(folder, (made) => writeBlocks(made, planned));
  }
  return withBlocksOf(folder, planned);
}

/** The planned model with the blocks that a folder holds. */
export async function withBlocksOf(folder: string, planned: OpenedModel): Promise<OpenedModel> {
  const { tensors } = await files.openSafetensors(folder);
  const { spec, weights: plan } = planned.quantized!;
  const weights = new Map<string, TensorInfo>();
  for (const [name, info] of plan) {
    const { file, offset } = tensors.get(name)!;
    weights.set(name, { ...info, file, offset });
  }
  // Where others have quantised it there is no original.
  return { ...planned, ...(spec.method && { weights }), quantized: { spec, weights } };
}

/** All weights, those that are not quantised as they are: what a session maps must lie in one folder. */
export async function writeBlocks(folder: string, { weights, quantized }: OpenedModel) {
  const sources = [...quantized!.weights].map(([name, info]): TensorSource => {
    const source = weights.get(name)!;
    const dtype = weightDtype(source);
    if (!blocks.isBlocked(info))
      return { name, dtype, shape: info.shape, data: () => streamAs(source, dtype) };
    const made = () => blocks.inParts(encoded(source, info));
    const kept = () => (blocks.isBlocked(source) ? files.streamBytes(source) : made());
    const data = () => (isPacked(source) ? relaid(source) : kept());
    return { name, dtype: "U8", shape: [info.byteLength], data };
  });
  const path = join(folder, modelFiles.weights);
  await files.writeSafetensors(path, sources);
  await writeJson(join(folder, SEAL), { sha256: await files.sha256OfFile(path) });
}

async function* encoded(source: TensorInfo, info: blocks.BlockedTensor) {
  const { bits, block, shift } = info;
  for await (const { buffer } of streamAs(source, "F32")) {
    const values = new Float32Array(buffer);
    const made = blocks.toBlocks(values, bits, block, source.name, shift !== null);
    const factors = new Uint8Array(made.factors.buffer);
    const shifts = () => blocks.shiftBytes(info, made.zeros, decodeFloats("F16", factors)!);
    yield [made.codes, factors, ...(shift ? [shifts()] : [])];
  }
}

async function isSound(folder: string): Promise<boolean> {
  const { sha256 } = (await readJsonIfSound(join(folder, SEAL))) ?? {};
  if (typeof sha256 !== "string") return false;
  const found = await files.sha256OfFile(join(folder, modelFiles.weights)).catch(() => undefined);
  return found === sha256;
}
