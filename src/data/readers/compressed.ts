// The bytes of files, also behind gzip or Zstandard, as they come.

import { createReadStream } from "node:fs";
import { pipeline } from "node:stream";
import { createGunzip } from "node:zlib";
import xxhash from "xxhash-wasm";
import { messageOf } from "../../core/errors.ts";
import { OpenFile } from "../../files/open-file.ts";

const stored = (path: string) => createReadStream(path, { highWaterMark: 1 << 20 });
const decompressors = {
  ".gz": (path) => pipeline(stored(path), createGunzip(), () => undefined),
  ".zst": unzstd,
} satisfies Readonly<Record<string, (path: string) => AsyncIterable<Uint8Array>>>;

/** What stands behind a text's own extension. */
export const COMPRESSIONS = Object.keys(decompressors) as (keyof typeof decompressors)[];

export function readBytes(path: string): AsyncIterable<Uint8Array> {
  const end = COMPRESSIONS.find((end) => path.toLowerCase().endsWith(end));
  return end ? decompressors[end](path) : stored(path);
}

const failure = (problem: string, code = "ZSTD") => Object.assign(new Error(problem), { code });

/**
 * Frames of Zstandard, one after another, block by block (RFC 8878, 3.1.1). fzstd passes their checksums over, and Node 20
 * has no decoder of its own.
 */
async function* unzstd(path: string): AsyncGenerator<Uint8Array> {
  const { Decompress } = await import("fzstd");
  const file = new OpenFile(path);
  let at = 0;
  const take = (count: number) => {
    if (at + count > file.size) throw failure("it ends too early");
    at += count;
    return Buffer.from(file.read(at - count, count));
  };
  while (at !== file.size) {
    const magic = take(4);
    if (magic.readUInt32LE() >>> 4 === 0x184d2a5) {
      const length = take(4).readUInt32LE();
      at += length; // a frame to be skipped
      continue;
    }
    const flags = take(1)[0]!;
    const hash = flags & 4 ? (await xxhash()).create64() : undefined;
    const parts: Uint8Array[] = [];
    const stream = new Decompress((part) => parts.push(part));
    const push = (bytes: Uint8Array, isLast = false) => {
      try {
        stream.push(bytes, isLast);
      } catch (cause) {
        throw failure(messageOf(cause));
      }
      for (const part of parts) hash?.update(part);
      return parts.splice(0);
    };
    const [isSingle, sizeForm] = [(flags >> 5) & 1, flags >> 6];
    const sizes = [1 - isSingle, [0, 1, 2, 4][flags & 3]!, [isSingle, 2, 4, 8][sizeForm]!];
    yield* push(Buffer.concat([magic, Buffer.of(flags), take(sizes.reduce((a, b) => a + b))]));
    for (let isLast = false; !isLast;) {
      const head = take(3);
      const word = head.readUIntLE(0, 3);
      isLast = (word & 1) === 1;
      const isRepeated = ((word >> 1) & 3) === 1;
      yield* push(Buffer.concat([head, take(isRepeated ? 1 : word >> 3)]));
    }
    const checksum = take(flags & 4);
    yield* push(checksum, true);
    if (hash && BigInt(checksum.readUInt32LE()) !== BigInt.asUintN(32, hash.digest()))
      throw failure("its checksum is of other bytes", "CHECKSUM");
  }
}
