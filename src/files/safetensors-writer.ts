// Writer of safetensors checkpoints, single or sharded; tensors may be streamed, so a model need not fit in memory.

import { mkdir, readdir, rm } from "node:fs/promises";
import { join } from "node:path";
import { DTYPE_BYTES, type Dtype } from "../core/dtype.ts";
import { invariant, UserError } from "../core/errors.ts";
import { sizeOf } from "../core/shape.ts";
import { replaceFile, writeFileAtomic } from "./atomic.ts";
import { modelFiles } from "./names.ts";
import { maxHeaderBytes } from "./safetensors-header.ts";

/** A tensor to be written. */
export interface TensorSource {
  readonly name: string;
  readonly dtype: Dtype;
  readonly shape: readonly number[];
  /** Little-endian values, row-major: all of them, or a function that yields them piece by piece. */
  data: Uint8Array | (() => AsyncIterable<Uint8Array>);
}

export interface ShardOptions {
  /** As for writeSafetensors. */
  readonly metadata?: Readonly<Record<string, string>> | null;
  /** Bytes of tensors in one file, unless a single tensor is larger; default 5 GB. */
  readonly maxShardBytes?: number;
}

/**
 * Writes one file atomically: large number formats first, then by name, the data aligned to 8 bytes.
 * `metadata` is `{"format":"pt"}` by default, which Hugging Face loaders look for; null writes none.
 */
export async function writeSafetensors(
  path: string,
  tensors: readonly TensorSource[],
  metadata: Readonly<Record<string, string>> | null = { format: "pt" },
): Promise<void> {
  const sorted = [...tensors].sort(
    (a, b) => DTYPE_BYTES[b.dtype] - DTYPE_BYTES[a.dtype] || (a.name < b.name ? -1 : 1),
  );
  const header = headerBytes(sorted, metadata);
  await replaceFile(path, async (handle) => {
    await handle.writeFile(header);
    for (const tensor of sorted) {
      let written = 0;
      for await (const chunk of chunksOf(tensor)) {
        await handle.writeFile(chunk); // unlike write, goes on until all of the chunk is written
        written += chunk.length;
      }
      invariant(
        written === byteSize(tensor),
        `"${tensor.name}" gave ${written} bytes, ${byteSize(tensor)} expected`,
      );
    }
  });
}

/**
 * Writes `model.safetensors` into the folder or, where that would be over `maxShardBytes`, shards and their index,
 * named as Hugging Face names them. Returns the paths of the files, the index last.
 */
export async function writeSharded(
  folder: string,
  tensors: readonly TensorSource[],
  options: ShardOptions = {},
): Promise<string[]> {
  const { metadata, maxShardBytes = 5e9 } = options;
  const shards = splitIntoShards(tensors, maxShardBytes);
  const names = shards.map((_, i) => shardName(i, shards.length));
  await mkdir(folder, { recursive: true });
  await refuseOtherWeights(folder, names);
  const paths = names.map((name) => join(folder, name));
  try {
    for (const [i, shard] of shards.entries()) {
      await writeSafetensors(paths[i]!, shard, metadata);
    }
    if (shards.length > 1) {
      paths.push(join(folder, modelFiles.index));
      await writeFileAtomic(paths.at(-1)!, indexJson(shards, names));
    }
  } catch (error) {
    if (shards.length > 1) for (const path of paths) await rm(path, { force: true });
    throw error;
  }
  return paths;
}

async function* chunksOf(tensor: TensorSource): AsyncGenerator<Uint8Array> {
  if (tensor.data instanceof Uint8Array) yield tensor.data;
  else yield* tensor.data();
}

function headerBytes(
  tensors: readonly TensorSource[],
  metadata: Readonly<Record<string, string>> | null,
): Uint8Array {
  // Joined by hand: an object would move names that look like numbers to the front.
  const members = metadata ? [`"__metadata__":${JSON.stringify(metadata)}`] : [];
  const names = new Set(["__metadata__"]);
  let offset = 0;
  for (const tensor of tensors) {
    const { name, dtype, shape } = tensor;
    invariant(!names.has(name), `two tensors are named "${name}"`);
    names.add(name);
    const end = offset + byteSize(tensor);
    members.push(
      `${JSON.stringify(name)}:${JSON.stringify({ dtype, shape, data_offsets: [offset, end] })}`,
    );
    offset = end;
  }
  const json = new TextEncoder().encode(`{${members.join(",")}}`);
  const length = Math.ceil(json.length / 8) * 8;
  invariant(length <= maxHeaderBytes, `a header of ${length} bytes is over the format's limit`);
  const bytes = new Uint8Array(8 + length).fill(0x20);
  new DataView(bytes.buffer).setBigUint64(0, BigInt(length), true);
  bytes.set(json, 8);
  return bytes;
}

function byteSize({ name, dtype, shape }: TensorSource): number {
  invariant(
    shape.every((dim) => Number.isSafeInteger(dim) && dim >= 0),
    `"${name}" has shape [${shape.join(", ")}]`,
  );
  return sizeOf(shape) * DTYPE_BYTES[dtype];
}

/** In the given order, each shard as full as it may be. */
function splitIntoShards(
  tensors: readonly TensorSource[],
  maxShardBytes: number,
): (readonly TensorSource[])[] {
  const shards: TensorSource[][] = [[]];
  let filled = 0;
  for (const tensor of tensors) {
    const size = byteSize(tensor);
    if (filled > 0 && filled + size > maxShardBytes) {
      shards.push([]);
      filled = 0;
    }
    shards.at(-1)!.push(tensor);
    filled += size;
  }
  return shards;
}

function shardName(i: number, count: number): string {
  if (count === 1) return modelFiles.weights;
  const [number, total] = [i + 1, count].map((n) => String(n).padStart(5, "0"));
  return `model-${number}-of-${total}.safetensors`;
}

function indexJson(shards: readonly (readonly TensorSource[])[], names: readonly string[]): string {
  const placed = shards.flatMap((shard, i) =>
    shard.map((tensor) => [tensor.name, names[i]!] as const),
  );
  const total = shards.flat().reduce((sum, tensor) => sum + byteSize(tensor), 0);
  const weightMap = Object.fromEntries(placed.sort(([a], [b]) => (a < b ? -1 : 1)));
  const index = { metadata: { total_size: total }, weight_map: weightMap };
  return `${JSON.stringify(index, null, 2)}\n`;
}

/** Weights under other names would stay beside the new ones, and a reader could take either. */
async function refuseOtherWeights(folder: string, names: readonly string[]): Promise<void> {
  const replaced = new Set(names.length > 1 ? [...names, modelFiles.index] : names);
  const other = (await readdir(folder)).find(
    (name) =>
      /^model(-\d+-of-\d+)?\.safetensors(\.index\.json)?$/.test(name) && !replaced.has(name),
  );
  if (other === undefined) return;
  throw new UserError(`${folder} already holds other weights (${other})`, {
    hint: "choose an empty folder",
  });
}
