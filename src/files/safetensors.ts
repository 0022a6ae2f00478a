// Safetensors checkpoints, single or sharded: opening reads headers alone, tensors are read on demand, and written as they
// come, so that a model need not fit in memory.

import { createHash, type Hash } from "node:crypto";
import { createReadStream } from "node:fs";
import { open, readdir, realpath, type FileHandle } from "node:fs/promises";
import { basename, dirname, join } from "node:path";
import { decodeFloats } from "../core/dtype.ts";
import { invariant, messageOf, UserError } from "../core/errors.ts";
import { isRecord, shown } from "../core/json.ts";
import { openQueue } from "../core/worker.ts";
import { checkFile, replaceFile, statIfPresent } from "./atomic.ts";
import { writeJson } from "./json.ts";
import { modelFiles } from "./names.ts";
import * as header from "./safetensors-header.ts";
import type { Metadata, TensorInfo, TensorSource } from "./safetensors-header.ts";

export type { TensorInfo, TensorSource } from "./safetensors-header.ts";

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
const useOriginal =
  "weights quantised in this way cannot be used: take the original ones, in safetensors";

/** Opens a `.safetensors` file, an index of shards, or a model folder that holds either; reads headers only. */
export async function openSafetensors(path: string): Promise<Checkpoint> {
  const isFolder = (await statIfPresent(path))?.isDirectory();
  if (!isFolder) return path.endsWith(".json") ? openShards(path) : openFiles([path]);
  const names = await readdir(path);
  if (names.includes(singleName)) return openFiles([join(path, singleName)]);
  if (names.includes(indexName)) return openShards(join(path, indexName));
  throw noWeights(path, names);
}

type Stored = Pick<TensorInfo, "name" | "file" | "offset" | "byteLength">;

/** The raw bytes of a tensor of any dtype. */
export async function readBytes(info: Stored): Promise<Uint8Array> {
  for await (const whole of streamBytes(info, info.byteLength)) return whole;
  return new Uint8Array();
}

/** The raw bytes of a tensor in pieces, each a new array, so that any size passes through little memory. */
export async function* streamBytes(info: Stored, chunkBytes = 16 * 2 ** 20) {
  const { file, name, offset, byteLength } = info;
  await using handle = await open(file, "r");
  for (let start = 0; start < byteLength; start += chunkBytes) {
    const length = Math.min(chunkBytes, byteLength - start);
    const bytes = await readUpTo(handle, offset + start, length);
    const problem = `tensor "${name}" is cut off; the file has shrunk since it was opened`;
    if (bytes.length < length) throw new UserError(`${file}: ${problem}`, { exitCode: 1 });
    yield bytes;
  }
}

/** The values of an F64, F32, F16 or BF16 tensor as float32. */
export async function readFloats(info: TensorInfo): Promise<Float32Array> {
  const { file, name, dtype } = info;
  const values = header.isReadableDtype(dtype) && decodeFloats(dtype, await readBytes(info));
  if (values) return values;
  const problem = `is ${dtype}; weights must be F64, F32, F16 or BF16`;
  throw new UserError(`${file}: tensor "${name}" ${problem}`, { hint: useOriginal });
}

/** From so many bytes on a thread of its own hashes a file: half a second of work or more. */
const LARGE_BYTES = 2 ** 27;

/** SHA-256 of a file of any size, in hexadecimal. */
export async function sha256OfFile(path: string): Promise<string> {
  const { size = 0 } = (await statIfPresent(path)) ?? {};
  if (size < LARGE_BYTES) return hashOfFile(path, createHash("sha256"));
  const hasher = openQueue<(path: string) => Promise<string>>("./hash-worker", import.meta.url);
  try {
    return await hasher.ask(path);
  } finally {
    await hasher.close();
  }
}

/** The hash of a file, or of its bytes from `start` up to `end`, after what it was given before. */
export async function hashOfFile(path: string, hash: Hash, end = Infinity, start = 0) {
  const chunks = createReadStream(path, { highWaterMark: 2 ** 20, start, end: end - 1 });
  for await (const chunk of chunks) hash.update(chunk as Uint8Array);
  return hash.digest("hex");
}

/** Of open checkpoints, whose files stay as they are: a large one takes minutes to read. */
const identities = new WeakMap<Checkpoint, Promise<string>>();

/** The identity of a model's weights: its only file's SHA-256, or that of the sorted lines `<shard name> <SHA-256>\n`. */
export function modelSha256(checkpoint: Checkpoint): Promise<string> {
  const known = identities.get(checkpoint) ?? identityOf(checkpoint);
  identities.set(checkpoint, known);
  return known;
}

async function identityOf({ files }: Checkpoint): Promise<string> {
  const lines: string[] = [];
  for (const file of files) lines.push(`${basename(file)} ${await sha256OfFile(file)}\n`);
  if (files.length === 1) return lines[0]!.trimEnd().slice(-64);
  return createHash("sha256").update(lines.sort().join("")).digest("hex");
}

/** The files as one checkpoint; `placed` by an index, which says what is where. */
async function openFiles(
  files: readonly string[],
  index?: { readonly path: string; readonly placed: ReadonlyMap<string, string> },
): Promise<Checkpoint> {
  const tensors = new Map<string, TensorInfo>();
  const metadata: Record<string, string> = {};
  for (const file of files) {
    const fail = (problem: string) => new UserError(`${file}: holds tensor ${problem}`);
    const shard = await readHeader(file, index && `, which ${index.path} names`);
    for (const info of shard.tensors) {
      const { name } = info;
      const place = index?.placed.get(name);
      if (index && place !== undefined && join(dirname(index.path), place) !== file)
        throw fail(`"${name}", but ${index.path} places it in ${place}`);
      if (tensors.has(name)) throw fail(`"${name}", as another file does`);
      tensors.set(name, info);
    }
    Object.assign(metadata, shard.metadata);
  }
  const absent = new Map([...(index?.placed ?? [])].filter(([name]) => !tensors.has(name)));
  return { files, tensors, metadata, absent };
}

async function openShards(path: string): Promise<Checkpoint> {
  const placed = await readIndex(path);
  const files = [...new Set(placed.values())].sort().map((name) => join(dirname(path), name));
  return openFiles(files, { path, placed });
}

/** Tensor name to shard name, of an index. */
export async function readIndex(path: string): Promise<ReadonlyMap<string, string>> {
  const hint = "is the file complete? fetch it again from the source";
  const fail = (problem: string): never => {
    throw new UserError(`${path}: ${problem}`, { hint });
  };
  await using handle = await openFile(path);
  const bytes = await handle.readFile();
  const json = header.parseUniqueJson(bytes, (problem) => fail(`the index ${problem}`));
  const map = isRecord(json) ? json["weight_map"] : undefined;
  if (!isRecord(map)) return fail("the index has no object weight_map");
  const placed = new Map<string, string>();
  for (const [name, shard] of Object.entries(map)) {
    if (typeof shard !== "string" || !staysInside(shard))
      return fail(`tensor "${name}" is placed in ${shown(shard)}, not a file of this folder`);
    placed.set(name, shard);
  }
  return placed;
}

/** Whether a path is relative and stays in its folder, under the rules of every system. */
export const staysInside = (path: string): boolean =>
  path.split(/[\\/]/).every((part) => !/^$|^\.\.?$|^[a-z]:|\0/i.test(part));

async function openFile(path: string, because = ""): Promise<FileHandle> {
  await checkFile(path);
  return open(path, "r").catch((cause: unknown) => {
    throw new UserError(`cannot open ${path}${because}: ${messageOf(cause)}`, { cause });
  });
}

async function readHeader(path: string, because?: string) {
  await using handle = await openFile(path, because);
  const { size } = await handle.stat();
  const length = header.headerLength(path, await readUpTo(handle, 0, Math.min(8, size)), size);
  const bytes = await readUpTo(handle, 8, length);
  const { tensors, metadata } = header.parseHeader(path, bytes, size - 8 - length);
  const file = await realpath(path);
  return { tensors: tensors.map((info) => ({ ...info, file })), metadata };
}

/** `length` bytes from `position`, or fewer where the file ends before; none where `length` is below 0. */
export async function readUpTo(handle: FileHandle, position: number, length: number) {
  const bytes = new Uint8Array(Math.max(0, length));
  for (let done = 0; done < length;) {
    // One read is at most 2 GiB on Linux.
    const request = Math.min(length - done, 2 ** 30);
    const { bytesRead } = await handle.read(bytes, done, request, position + done);
    if (bytesRead === 0) return bytes.slice(0, done);
    done += bytesRead;
  }
  return bytes;
}

/**
 * Writes one file atomically: tensors in their order, the data aligned to 8 bytes. `metadata` is `{"format":"pt"}` by default, which Hugging Face loaders look for; null writes none.
 */
export async function writeSafetensors(
  path: string,
  tensors: readonly TensorSource[],
  metadata: Metadata = { format: "pt" },
): Promise<void> {
  const sorted = header.inFileOrder(tensors);
  const start = header.headerBytes(sorted, metadata);
  await replaceFile(path, async (handle) => {
    await handle.writeFile(start);
    for (const tensor of sorted) {
      const { name, data } = tensor;
      let written = 0;
      for await (const chunk of data instanceof Uint8Array ? [data] : data()) {
        await handle.writeFile(chunk); // unlike write, goes on until all of the chunk is written
        written += chunk.length;
      }
      const expected = header.byteSize(tensor);
      invariant(written === expected, `"${name}" gave ${written} bytes, ${expected} expected`);
    }
  });
}

/**
 * Writes `model.safetensors` into a new folder or, where that would be over `maxShardBytes` (default 5 GB), shards and
 * their index, named as Hugging Face names them; a tensor larger than that has a shard of its own.
 */
export async function writeSharded(
  folder: string,
  tensors: readonly TensorSource[],
  options: { readonly metadata?: Metadata; readonly maxShardBytes?: number } = {},
): Promise<void> {
  const { metadata, maxShardBytes = 5e9 } = options;
  // In the given order, each shard as full as it may be.
  const shards: TensorSource[][] = [[]];
  let [filled, total] = [0, 0];
  for (const tensor of tensors) {
    const size = header.byteSize(tensor);
    if (filled > 0 && filled + size > maxShardBytes) {
      shards.push([]);
      filled = 0;
    }
    shards.at(-1)!.push(tensor);
    filled += size;
    total += size;
  }
  if (shards.length === 1) return writeSafetensors(join(folder, singleName), tensors, metadata);
  const places: [tensor: string, shard: string][] = [];
  for (const [i, shard] of shards.entries()) {
    const [number, count] = [i + 1, shards.length].map((n) => String(n).padStart(5, "0"));
    const name = `model-${number}-of-${count}.safetensors`;
    for (const tensor of shard) places.push([tensor.name, name]);
    await writeSafetensors(join(folder, name), shard, metadata);
  }
  const map = Object.fromEntries(places.sort(([a], [b]) => (a < b ? -1 : 1)));
  const index = { metadata: { total_size: total }, weight_map: map };
  await writeJson(join(folder, indexName), index);
}

const others: readonly (readonly [name: RegExp, problem: string, hint: string])[] = [
  [/\.safetensors$/, `no ${singleName}, but %`, `name the file itself, or rename it`],
  [
    /\.(gguf|ggml|llamafile)$/i,
    "quantised weights (%), not safetensors",
    "a GGUF file is a model by its path, one on the hub as org/name/FILE.gguf; else take the original",
  ],
  [
    /^(?!train|val|test|optimizer|scheduler|training_args).*\.(bin|pth?|ckpt|pkl)$/i,
    "pickled weights (%), not safetensors",
    "pickles can run code when loaded; save them with save_pretrained(…, safe_serialization=True)",
  ],
];

/** Why a folder or a repository without weights cannot be used, by what it holds instead. */
export function noWeights(where: string, names: readonly string[]): UserError {
  for (const [pattern, problem, hint] of others) {
    const name = [...names].sort().find((name) => pattern.test(name));
    if (name) return new UserError(`${where} holds ${problem.split("%").join(name)}`, { hint });
  }
  return new UserError(`${where} holds neither ${singleName} nor ${indexName}`, {
    hint: "is this a model folder? it needs config.json and safetensors weights",
  });
}
