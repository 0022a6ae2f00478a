// Reader of safetensors checkpoints, single or sharded: opening reads headers alone, tensors are read on demand.
// The writer is in safetensors-writer.ts; callers find both here.

import { createHash } from "node:crypto";
import { createReadStream } from "node:fs";
import { open, readdir, readFile, realpath, stat, type FileHandle } from "node:fs/promises";
import { basename, dirname, join } from "node:path";
import { decodeFloats } from "../core/dtype.ts";
import { messageOf, UserError } from "../core/errors.ts";
import { isRecord } from "./json.ts";
import { modelFiles } from "./names.ts";
import {
  headerLength,
  isReadableDtype,
  parseHeader,
  parseUniqueJson,
} from "./safetensors-header.ts";

export { writeSafetensors, writeSharded, type TensorSource } from "./safetensors-writer.ts";

export interface TensorInfo {
  readonly name: string;
  /** Name of the number format as in the file; may be one that can be listed but not read, such as F8_E4M3. */
  readonly dtype: string;
  readonly shape: readonly number[];
  /** The real file, symbolic links resolved. */
  readonly file: string;
  /** Bytes from the start of the file; a multiple of nothing in particular. */
  readonly offset: number;
  readonly byteLength: number;
}

export interface Checkpoint {
  /** As named in the folder, so before symbolic links are resolved. */
  readonly files: readonly string[];
  /** By name; in the order of files and of bytes in them. */
  readonly tensors: ReadonlyMap<string, TensorInfo>;
  readonly metadata: Readonly<Record<string, string>>;
  /** Names that an index lists in vain, with the file they should be in: fine for buffers, not for weights. */
  readonly absent: ReadonlyMap<string, string>;
}

const { weights: singleName, index: indexName } = modelFiles;

/** Opens a `.safetensors` file, an index of shards, or a model folder that holds either; reads headers only. */
export async function openSafetensors(path: string): Promise<Checkpoint> {
  const found = await fileOrFolder(path);
  if (found === "file") return path.endsWith(".json") ? openShards(path) : openSingle(path);
  const names = await readdir(path);
  if (names.includes(singleName)) return openSingle(join(path, singleName));
  if (names.includes(indexName)) return openShards(join(path, indexName));
  throw noWeights(path, names);
}

/** The raw bytes of a tensor of any dtype. */
export async function readBytes(info: TensorInfo): Promise<Uint8Array> {
  const handle = await open(info.file, "r");
  try {
    return await readRange(handle, info, 0, info.byteLength);
  } finally {
    await handle.close();
  }
}

/** The raw bytes of a tensor in pieces, each a new array, so that any size passes through little memory. */
export async function* streamBytes(
  info: TensorInfo,
  chunkBytes = 16 * 2 ** 20,
): AsyncGenerator<Uint8Array> {
  const handle = await open(info.file, "r");
  try {
    for (let start = 0; start < info.byteLength; start += chunkBytes) {
      yield await readRange(handle, info, start, Math.min(chunkBytes, info.byteLength - start));
    }
  } finally {
    await handle.close();
  }
}

/** The values of an F64, F32, F16 or BF16 tensor as float32. */
export async function readFloats(info: TensorInfo): Promise<Float32Array> {
  const values = isReadableDtype(info.dtype)
    ? decodeFloats(info.dtype, await readBytes(info))
    : undefined;
  if (values) return values;
  throw new UserError(
    `${info.file}: tensor "${info.name}" is ${info.dtype}; weights must be F64, F32, F16 or BF16`,
    { hint: "quantised checkpoints cannot be used: take the original one" },
  );
}

/** SHA-256 of a file of any size, in hexadecimal. */
export async function sha256OfFile(path: string): Promise<string> {
  const hash = createHash("sha256");
  const chunks = createReadStream(path, { highWaterMark: 2 ** 20 });
  for await (const chunk of chunks) hash.update(chunk as Uint8Array);
  return hash.digest("hex");
}

/** The identity of a model's weights: its only file's SHA-256, or that of the sorted lines `<shard name> <SHA-256>\n`. */
export async function modelSha256(checkpoint: Checkpoint): Promise<string> {
  const lines: string[] = [];
  for (const file of checkpoint.files) {
    const sha256 = await sha256OfFile(file);
    if (checkpoint.files.length === 1) return sha256;
    lines.push(`${basename(file)} ${sha256}\n`);
  }
  return createHash("sha256").update(lines.sort().join("")).digest("hex");
}

async function fileOrFolder(path: string): Promise<"file" | "folder"> {
  try {
    return (await stat(path)).isDirectory() ? "folder" : "file";
  } catch (error) {
    throw new UserError(`cannot open ${path}: ${messageOf(error)}`, { cause: error });
  }
}

async function openSingle(path: string): Promise<Checkpoint> {
  const { tensors, metadata } = await readHeader(path);
  const byName = new Map(tensors.map((info) => [info.name, info]));
  return { files: [path], tensors: byName, metadata, absent: new Map() };
}

async function openShards(indexPath: string): Promise<Checkpoint> {
  const placed = await readIndex(indexPath);
  const files = [...new Set(placed.values())].sort().map((name) => join(dirname(indexPath), name));
  const tensors = new Map<string, TensorInfo>();
  const metadata: Record<string, string> = {};
  for (const file of files) {
    const shard = await readHeader(file, indexPath);
    for (const info of shard.tensors) {
      const place = placed.get(info.name);
      if (place !== undefined && join(dirname(indexPath), place) !== file)
        throw new UserError(
          `${file}: holds tensor "${info.name}", but ${indexPath} places it in ${place}`,
        );
      if (tensors.has(info.name))
        throw new UserError(`${file}: holds tensor "${info.name}", as another file does`);
      tensors.set(info.name, info);
    }
    Object.assign(metadata, shard.metadata);
  }
  const absent = new Map([...placed].filter(([name]) => !tensors.has(name)));
  return { files, tensors, metadata, absent };
}

/** Tensor name to shard name. */
async function readIndex(path: string): Promise<Map<string, string>> {
  const fail = (problem: string): never => {
    throw new UserError(`${path}: ${problem}`, {
      hint: "is the file complete? fetch it again from the source",
    });
  };
  const index = parseUniqueJson(await readFile(path), (problem) => fail(`the index ${problem}`));
  const map = isRecord(index) ? index["weight_map"] : undefined;
  if (!isRecord(map)) return fail("the index has no object weight_map");
  return new Map(
    Object.entries(map).map(([name, shard]) => {
      if (typeof shard !== "string" || !staysInside(shard)) {
        return fail(
          `tensor "${name}" is placed in ${JSON.stringify(shard)}, which is not a file of this folder`,
        );
      }
      return [name, shard];
    }),
  );
}

/** Whether a path is relative and stays in its folder, under the rules of every system. */
export function staysInside(path: string): boolean {
  return path.split(/[\\/]/).every((part) => !/^$|^\.\.?$|^[a-z]:|\0/i.test(part));
}

async function readHeader(
  path: string,
  indexPath?: string,
): Promise<{ tensors: TensorInfo[]; metadata: Readonly<Record<string, string>> }> {
  let handle: FileHandle;
  try {
    handle = await open(path, "r");
  } catch (error) {
    const because = indexPath === undefined ? "" : `, which ${indexPath} names`;
    throw new UserError(`cannot open ${path}${because}: ${messageOf(error)}`, { cause: error });
  }
  try {
    const stats = await handle.stat();
    if (!stats.isFile()) throw new UserError(`${path} is not a file`);
    const { size } = stats;
    const length = headerLength(path, await readUpTo(handle, 0, Math.min(8, size)), size);
    const dataStart = 8 + length;
    const header = parseHeader(path, await readUpTo(handle, 8, length), size - dataStart);
    const file = await realpath(path);
    const tensors = header.entries.map(({ name, dtype, shape, begin, end }) => {
      return { name, dtype, shape, file, offset: dataStart + begin, byteLength: end - begin };
    });
    return { tensors, metadata: header.metadata };
  } finally {
    await handle.close();
  }
}

async function readRange(
  handle: FileHandle,
  info: TensorInfo,
  start: number,
  length: number,
): Promise<Uint8Array> {
  const bytes = await readUpTo(handle, info.offset + start, length);
  if (bytes.length === length) return bytes;
  throw new UserError(
    `${info.file}: tensor "${info.name}" is cut off; the file has shrunk since it was opened`,
    { exitCode: 1 },
  );
}

/** `length` bytes from `position`, or fewer where the file ends before. */
export async function readUpTo(
  handle: FileHandle,
  position: number,
  length: number,
): Promise<Uint8Array> {
  const bytes = new Uint8Array(length);
  let done = 0;
  while (done < length) {
    // One read is at most 2 GiB on Linux.
    const request = Math.min(length - done, 2 ** 30);
    const { bytesRead } = await handle.read(bytes, done, request, position + done);
    if (bytesRead === 0) break;
    done += bytesRead;
  }
  return done === length ? bytes : bytes.slice(0, done);
}

/** Why a folder without safetensors cannot be used, by what it holds instead. */
function noWeights(folder: string, names: readonly string[]): UserError {
  const sorted = [...names].sort();
  const first = (pattern: RegExp) => sorted.find((name) => pattern.test(name));
  const other = first(/\.safetensors$/);
  if (other) {
    return new UserError(`${folder} holds no ${singleName}, but ${other}`, {
      hint: `name the file itself, or rename it to ${singleName}`,
    });
  }
  const quantised = first(/\.(gguf|ggml|llamafile)$/i);
  if (quantised) {
    return new UserError(`${folder} holds quantised weights (${quantised}), not safetensors`, {
      hint: "quantised checkpoints cannot be used: take the original one, in safetensors",
    });
  }
  const pickled = first(
    /^(?!train|val|test|optimizer|scheduler|training_args).*\.(bin|pth?|ckpt)$/i,
  );
  if (pickled) {
    return new UserError(`${folder} holds pickled weights (${pickled}), not safetensors`, {
      hint: "pickles can run code when loaded and are not read; save them with save_pretrained(…, safe_serialization=True)",
    });
  }
  return new UserError(`${folder} holds neither ${singleName} nor ${indexName}`, {
    hint: "is this a model folder? it needs config.json and safetensors weights",
  });
}
