// A GGUF file, or all parts of one, as a model folder in the cache: made once, of the content and the tokenizer beside it. Its matrices
// stay in blocks, laid out as a run maps them; the metadata of their file says which, and what they were.

import { createHash } from "node:crypto";
import { existsSync } from "node:fs";
import { copyFile } from "node:fs/promises";
import { basename, dirname, join } from "node:path";
import { encodeFloats } from "../core/dtype.ts";
import { UserError } from "../core/errors.ts";
import { shown } from "../core/json.ts";
import { tokenizerOfGguf } from "../data/tokenizer/gguf-tokenizer.ts";
import { makeFolder, readIfPresent, replaceFolder, statIfPresent } from "../files/atomic.ts";
import { blockFormat, blocksOf } from "../files/gguf-blocks.ts";
import { keptDtype, keptValues, openGguf, partsOf, storedBytes } from "../files/gguf.ts";
import type { GgufTensor, Order } from "../files/gguf.ts";
import { writeJson } from "../files/json.ts";
import { modelFiles } from "../files/names.ts";
import { hashOfFile, readFloats, writeSafetensors } from "../files/safetensors.ts";
import type { Checkpoint, TensorInfo, TensorSource } from "../files/safetensors.ts";
import { modelOfGguf } from "../models/gguf.ts";
import { type Model, readModel } from "../models/index.ts";
import { blocked, type BlockedTensor, inParts, keptBits, packed } from "./blocks.ts";

/** Whether a name is that of a GGUF file which is there. */
export const isGguf = async (path: string) =>
  /\.gguf$/i.test(path) && (await statIfPresent(path))?.isFile() === true;

/** Another text where the same file would become another folder. */
const FORMAT = "3";
/** In a file's metadata, before the name of a tensor whose bytes are blocks: their format and the matrix's sides. */
const IN_BLOCKS = "ssa_gguf.";

/** The folder of the file's model below `cache`. */
export async function folderOfGguf(path: string, cache: string, onNote?: (note: string) => void) {
  const [first, ...others] = partsOf(path) as [string, ...string[]];
  const { metadata, tensors: ofFirst } = await openGguf(first);
  const parts = Number(metadata.get("split.count") ?? 1);
  if (parts !== 1 + others.length)
    throw new UserError(`${path} is one of ${parts} files of a model, by its content`, {
      hint: "keep llama.cpp's names of them, such as model-00001-of-00003.gguf",
    });
  const opened = await Promise.all(others.map(openGguf));
  const tensors = [...ofFirst, ...opened.flatMap((part) => part.tensors)];
  const names = new Set(tensors.map(({ name }) => name));
  const count = metadata.get("split.tensors.count") ?? tensors.length;
  if (names.size !== count)
    throw new UserError(
      `${first} and its other parts have ${names.size} tensors of ${shown(count)}`,
      {
        hint: "are they parts of one model? fetch them again from one source",
      },
    );
  const at = (name: string) => join(dirname(path), name);
  const own = [modelFiles.tokenizer, modelFiles.tokenizerConfig];
  const beside = existsSync(at(modelFiles.tokenizer)) ? own : [];
  const hash = createHash("sha256").update(FORMAT);
  for (const name of beside) hash.update((await readIfPresent(at(name))) ?? "");
  let key = await hashOfFile(first, hash);
  for (const part of others) key = await hashOfFile(part, createHash("sha256").update(key));
  const folder = join(cache, key);
  if (existsSync(folder)) return folder;

  const divisors = new Map<string, readonly number[]>();
  for (const info of tensors)
    if (info.name.startsWith("rope_")) divisors.set(info.name, [...(await readFloats(info))]);
  const model = modelOfGguf(path, { metadata, tensors, divisors });
  const tokenizer = beside.length > 0 ? undefined : tokenizerOfGguf(path, metadata);
  const built = readModel(path, model.config); // before anything is written
  const described: Record<string, string> = { format: "pt" };
  const sources = tensors
    .filter(({ name }) => !divisors.has(name))
    .map((tensor): TensorSource => {
      const { name, shape, ...order } = model.placeOf(tensor.name, tensor.shape);
      const info = keptBlocks(built, name, tensor.dtype, shape);
      if (!info)
        return { name, shape, dtype: keptDtype(tensor), data: () => keptValues(tensor, order) };
      described[IN_BLOCKS + name] = [tensor.dtype, ...shape].join(" ");
      const data = () => inParts(laidOut(info, tensor, order));
      return { name, shape: [info.byteLength], dtype: "U8", data };
    });
  onNote?.(`${basename(path)} is read once, into ${folder}`);
  await makeFolder(cache);
  await replaceFolder(folder, async (made) => {
    await writeJson(join(made, modelFiles.config), model.config);
    if (tokenizer) await writeJson(join(made, modelFiles.tokenizer), tokenizer.json);
    if (tokenizer) await writeJson(join(made, modelFiles.tokenizerConfig), tokenizer.config);
    for (const name of beside) if (existsSync(at(name))) await copyFile(at(name), join(made, name));
    await writeSafetensors(join(made, modelFiles.weights), sources, described);
  });
  return folder;
}

/** A matrix of this format as it is kept in blocks; undefined where it is not: of GPT-2, whose rows are inputs, none. */
function keptBlocks(model: Model, name: string, format: string, shape: readonly number[]) {
  const read = blockFormat(format);
  if (!read || model.layout === "DF") return undefined;
  const bits = keptBits(model, name, read.bits);
  const info = blocked({ name, shape }, bits, read.block, read.shift, read.factors);
  return info && { ...info, format };
}

/** The checkpoint with the matrices that were kept in blocks as these. */
export function asBlocks(checkpoint: Checkpoint, model: Model): Checkpoint {
  const { tensors, metadata } = checkpoint;
  const found = [...tensors].map(([name, info]): [string, TensorInfo] => {
    const [format = "", ...sides] = metadata[IN_BLOCKS + name]?.split(" ") ?? [];
    const { file, offset, byteLength } = info;
    const kept = keptBlocks(model, name, format, sides.map(Number));
    return [name, kept?.byteLength === byteLength ? { ...kept, file, offset } : info];
  });
  return { ...checkpoint, tensors: new Map(found) };
}

/** The parts of a tensor's blocks in the form of `info`, piece by piece. */
async function* laidOut(info: BlockedTensor, tensor: GgufTensor, order: Order) {
  const { bits, factors: dtype, shift } = info;
  // Codes from 0 to 15 become -8 to 7, and the bias has 8 factors more: exact where d and dmin are of like size.
  const least = bits === 4 && shift ? 8 : 0;
  for await (const bytes of storedBytes(tensor, order)) {
    const { codes, factors, biases } = blocksOf(blockFormat(tensor.dtype)!, bytes);
    const integers = codes.map((code) => code - least);
    const shifts = biases.map((bias, i) => bias + least * factors[i]!);
    const parts = [packed(integers, bits), encodeFloats(dtype, factors)];
    yield shift ? [...parts, encodeFloats("F32", shifts)] : parts;
  }
}
