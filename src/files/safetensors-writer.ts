// Writer of safetensors checkpoints, single or sharded; tensors may be streamed, so a model need not fit in memory.

import { join } from "node:path";
import { invariant } from "../core/errors.ts";
import { replaceFile } from "./atomic.ts";
import { writeJson } from "./json.ts";
import { modelFiles } from "./names.ts";
import { byteSize, headerBytes, inFileOrder } from "./safetensors-header.ts";
import type { Metadata, TensorSource } from "./safetensors-header.ts";

/**
 * Writes one file atomically: tensors in their order, the data aligned to 8 bytes. `metadata` is `{"format":"pt"}` by default, which Hugging Face loaders look for; null writes none.
 */
export async function writeSafetensors(
  path: string,
  tensors: readonly TensorSource[],
  metadata: Metadata = { format: "pt" },
): Promise<void> {
  const sorted = inFileOrder(tensors);
  const header = headerBytes(sorted, metadata);
  await replaceFile(path, async (handle) => {
    await handle.writeFile(header);
    for (const tensor of sorted) {
      const { name, data } = tensor;
      let written = 0;
      for await (const chunk of data instanceof Uint8Array ? [data] : data()) {
        await handle.writeFile(chunk); // unlike write, goes on until all of the chunk is written
        written += chunk.length;
      }
      const expected = byteSize(tensor);
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
    const size = byteSize(tensor);
    if (filled > 0 && filled + size > maxShardBytes) {
      shards.push([]);
      filled = 0;
    }
    shards.at(-1)!.push(tensor);
    filled += size;
    total += size;
  }
  if (shards.length === 1)
    return writeSafetensors(join(folder, modelFiles.weights), tensors, metadata);
  const places: [tensor: string, shard: string][] = [];
  for (const [i, shard] of shards.entries()) {
    const [number, count] = [i + 1, shards.length].map((n) => String(n).padStart(5, "0"));
    const name = `model-${number}-of-${count}.safetensors`;
    for (const tensor of shard) places.push([tensor.name, name]);
    await writeSafetensors(join(folder, name), shard, metadata);
  }
  const map = Object.fromEntries(places.sort(([a], [b]) => (a < b ? -1 : 1)));
  const index = { metadata: { total_size: total }, weight_map: map };
  await writeJson(join(folder, modelFiles.index), index);
}
