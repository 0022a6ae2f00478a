// The bytes of files, also behind gzip or Zstandard, as they come.

import { createReadStream, type ReadStream } from "node:fs";
import { pipeline } from "node:stream";
import { createGunzip } from "node:zlib";
import { messageOf } from "../../core/errors.ts";

const decompressors = {
  ".gz": (file) => pipeline(file, createGunzip(), () => undefined),
  ".zst": unzstd,
} satisfies Readonly<Record<string, (file: ReadStream) => AsyncIterable<Uint8Array>>>;

/** What stands behind a text's own extension. */
export const COMPRESSIONS = Object.keys(decompressors) as (keyof typeof decompressors)[];

export function readBytes(path: string): AsyncIterable<Uint8Array> {
  const file = createReadStream(path, { highWaterMark: 1 << 20 });
  const end = COMPRESSIONS.find((end) => path.toLowerCase().endsWith(end));
  return end ? decompressors[end](file) : file;
}

// Four bytes can stand for 128 KiB, so what is given at once stays small.
const zstdSlice = 1 << 13;

/** Frames of Zstandard, one after another; their checksums are passed over. Node 20 has no decoder of its own. */
async function* unzstd(file: AsyncIterable<Uint8Array>): AsyncGenerator<Uint8Array> {
  const { Decompress } = await import("fzstd");
  const parts: Uint8Array[] = [];
  const stream = new Decompress((part) => parts.push(part));
  const push = (bytes: Uint8Array, isLast: boolean) => {
    try {
      stream.push(bytes, isLast);
    } catch (cause) {
      throw Object.assign(new Error(messageOf(cause), { cause }), { code: "ZSTD" });
    }
    return parts.splice(0);
  };
  for await (const bytes of file)
    for (let at = 0; at < bytes.length; at += zstdSlice)
      yield* push(bytes.subarray(at, at + zstdSlice), false);
  yield* push(new Uint8Array(0), true);
}
