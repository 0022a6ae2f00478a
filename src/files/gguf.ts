// Reader of GGUF, llama.cpp's files of one model each: what they say in metadata, and where their tensors lie.
// The format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md

import { open } from "node:fs/promises";
import { decodeFloats, encodeFloats } from "../core/dtype.ts";
import { UserError } from "../core/errors.ts";
import { shown } from "../core/json.ts";
import { sizeOf } from "../core/shape.ts";
import { checkFile } from "./atomic.ts";
import { decodeBlocks, type GgmlFormat, ggmlFormats, ggmlNames } from "./gguf-blocks.ts";
import { readUpTo, streamBytes, type TensorInfo } from "./safetensors.ts";

export type GgufTensor = TensorInfo & { readonly dtype: GgmlFormat };

/** All files of a model of which one is named: llama.cpp numbers them, as in `model-00002-of-00005.gguf`. */
export function partsOf(path: string): string[] {
  const [, stem = path, count = ""] = /^(.*-)\d{5}-of-(\d{5})\.gguf$/i.exec(path) ?? [];
  if (!count) return [path];
  const numbers = Array.from({ length: Number(count) }, (_, i) => String(i + 1).padStart(5, "0"));
  return numbers.map((number) => `${stem}${number}-of-${count}.gguf`);
}

/** The longest header that is read: large vocabularies take some 20 MB. */
const maxHeaderBytes = 2 ** 26;

/** Reads what comes before the tensors' values: metadata, and tensors in the order of the file, shapes in PyTorch's. */
export async function openGguf(path: string) {
  await checkFile(path);
  await using handle = await open(path, "r");
  const { size } = await handle.stat();
  const bytes = await readUpTo(handle, 0, Math.min(size, maxHeaderBytes));
  try {
    return parse(path, bytes, size);
  } catch (error) {
    if (!(error instanceof RangeError)) throw error; // of a DataView whose end was passed
    const longest = `its header is longer than ${maxHeaderBytes} bytes`;
    throw damaged(path, bytes.length < size ? longest : "it ends within its header");
  }
}

const damaged = (path: string, problem: string) =>
  new UserError(`${path} is a damaged GGUF file: ${problem}`, {
    hint: "is the file complete? fetch it again from the source",
  });

const TRUTH = 7;
const TEXT = 8;
const LIST = 9;
/** What a DataView calls each type of value, by its number. */
const numbers =
  "Uint8 Int8 Uint16 Int16 Uint32 Int32 Float32 Uint8 - - BigUint64 BigInt64 Float64".split(" ");
type Getters = Readonly<Record<string, (at: number, isLittle: true) => number | bigint>>;

function parse(path: string, bytes: Uint8Array, size: number) {
  const fail = (problem: string): never => {
    throw damaged(path, problem);
  };
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  let at = 0;
  const read = (type: number, of: string): unknown => {
    if (type === TEXT) return text(of);
    if (type === LIST) return list(of);
    const name = numbers[type] ?? fail(`${of} is of the unknown type ${type}`);
    const value = (view as unknown as Getters)[`get${name}`]!.call(view, at, true);
    at += Number(/\d+/.exec(name)![0]) / 8;
    return type === TRUTH ? value === 1 : Number(value);
  };
  const u32 = () => read(4, "") as number;
  /** A size, of which none reaches beyond the file. */
  const count = (of: string): number => {
    const value = Number(read(10, ""));
    return value <= size ? value : fail(`${of} would be ${value}`);
  };
  const text = (of: string): string => {
    const length = count(`the length of ${of}`);
    at += length;
    if (at > bytes.length) throw new RangeError();
    return Buffer.from(bytes.subarray(at - length, at)).toString();
  };
  const list = (of: string): unknown[] => {
    const [type, length] = [u32(), count(`the length of ${of}`)];
    if (type === LIST) fail(`${of} is a list of lists`);
    const values: unknown[] = [];
    while (values.length < length) values.push(read(type, of));
    return values;
  };

  const magic = Buffer.from(bytes.subarray(0, 4)).toString("latin1");
  if (magic !== "GGUF")
    throw new UserError(`${path} is not a GGUF file: it begins with ${shown(magic)}`);
  at = 4;
  const version = u32();
  if (version !== 2 && version !== 3)
    throw new UserError(`${path} is GGUF of version ${version}; 2 and 3 are read`, {
      hint: "convert the model again with a present llama.cpp, on a little-endian machine",
    });
  const [numTensors, numKeys] = [count("the number of tensors"), count("the number of keys")];
  const metadata = new Map<string, unknown>();
  for (let i = 0; i < numKeys; i++) {
    const key = text("a key");
    metadata.set(key, read(u32(), shown(key)));
  }
  const names = new Set<string>();
  const listed = [];
  for (let i = 0; i < numTensors; i++) {
    const name = text("a tensor's name");
    const rank = u32();
    if (names.has(name) || rank > 4) fail(`tensor ${shown(name)} comes twice or has ${rank} sides`);
    names.add(name);
    const sides = Array.from({ length: rank }, () => count(`a side of tensor ${shown(name)}`));
    listed.push({ name, shape: sides.reverse(), type: u32(), start: count("a tensor's place") });
  }
  const alignment = Number(metadata.get("general.alignment") ?? 32);
  if (!Number.isInteger(Math.log2(alignment))) fail(`its alignment would be ${alignment}`);
  const dataStart = Math.ceil(at / alignment) * alignment;
  const tensors = listed.map(({ name, shape, type, start }): GgufTensor => {
    const dtype = (ggmlNames[type] ?? `of the unknown type ${type}`) as GgmlFormat;
    const of = `tensor ${shown(name)}`;
    if (!Object.hasOwn(ggmlFormats, dtype))
      throw new UserError(`${path}: ${of} is ${dtype}, which ssa does not read`, {
        hint: `take a file of another quantisation; read are ${Object.keys(ggmlFormats).join(", ")}`,
      });
    const { values, bytes } = ggmlFormats[dtype];
    if ((shape.at(-1) ?? 1) % values !== 0) fail(`${of} has rows of no whole blocks of ${values}`);
    const [offset, byteLength] = [dataStart + start, (sizeOf(shape) / values) * bytes];
    if (offset + byteLength > size)
      fail(`${of} would end at byte ${offset + byteLength} of ${size}`);
    return { name, dtype, shape, file: path, offset, byteLength };
  });
  return { metadata, tensors };
}

/** From the order of a file to that of a model: which row there each row is, or what becomes of the values as a whole. */
export interface Order {
  readonly rowOf?: (row: number) => number;
  readonly arrange?: (values: Float32Array) => Float32Array;
}

/** A tensor's bytes as they are stored, whole blocks at a time; all at once where they are to be in another order. */
export async function* storedBytes(tensor: GgufTensor, { rowOf, arrange }: Order) {
  const { dtype, byteLength, shape } = tensor;
  const chunkBytes = rowOf || arrange ? byteLength : ggmlFormats[dtype].bytes * 2 ** 16;
  const width = byteLength / shape[0]!;
  const inOrder = Array.from({ length: rowOf ? shape[0]! : 0 }, (_, row) => rowOf!(row) * width);
  for await (const bytes of streamBytes(tensor, chunkBytes)) {
    const rows = rowOf ? new Uint8Array(byteLength) : bytes;
    for (const [row, from] of inOrder.entries())
      rows.set(bytes.subarray(from, from + width), row * width);
    yield rows;
  }
}

/** In which format a tensor's values are kept: as stored, but for blocks, whose values only F32 holds exactly. */
export const keptDtype = ({ dtype }: GgufTensor): "F32" | "F16" | "BF16" =>
  dtype === "F16" || dtype === "BF16" ? dtype : "F32";

/** A tensor's values in that format and order, piece by piece. */
export async function* keptValues(tensor: GgufTensor, order: Order): AsyncGenerator<Uint8Array> {
  const [format, dtype] = [ggmlFormats[tensor.dtype], keptDtype(tensor)];
  for await (const bytes of storedBytes(tensor, order)) {
    const values = "read" in format ? decodeBlocks(format, bytes) : decodeFloats(dtype, bytes)!;
    yield encodeFloats(dtype, order.arrange?.(values) ?? values);
  }
}
