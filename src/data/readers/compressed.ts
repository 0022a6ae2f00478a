// The bytes of files, also behind gzip or Zstandard, as they come.

import { createReadStream, type ReadStream } from "node:fs";
import { pipeline } from "node:stream";
import { createGunzip } from "node:zlib";
import { messageOf } from "../../core/errors.ts";
import { xxh64 } from "./xxh64.ts";

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

const failure = (problem: string, code = "ZSTD") => Object.assign(new Error(problem), { code });

/** Takes so many bytes of a file at a time; fewer only at its end, and there only where none are needed. */
function taking(file: AsyncIterable<Uint8Array>) {
  const parts = file[Symbol.asyncIterator]();
  let left: Buffer = Buffer.alloc(0);
  return async (count: number, isNeeded = true): Promise<Buffer> => {
    const taken = [];
    for (let missing = count; missing > 0;) {
      const part = left.subarray(0, missing);
      left = left.subarray(part.length);
      missing -= part.length;
      taken.push(part);
      if (missing === 0) break;
      const { value, done } = await parts.next();
      if (done && (isNeeded || missing < count)) throw failure("it ends too early");
      if (done) break;
      left = Buffer.from(value.buffer, value.byteOffset, value.byteLength);
    }
    return Buffer.concat(taken);
  };
}

/**
 * Frames of Zstandard, one after another, block by block (RFC 8878, 3.1.1). fzstd passes their checksums over, and Node 20
 * has no decoder of its own.
 */
async function* unzstd(file: AsyncIterable<Uint8Array>): AsyncGenerator<Uint8Array> {
  const { Decompress } = await import("fzstd");
  const take = taking(file);
  for (let magic; (magic = await take(4, false)).length > 0;) {
    if (magic.readUInt32LE() >>> 4 === 0x184d2a5) {
      await take((await take(4)).readUInt32LE()); // a frame to be skipped
      continue;
    }
    const parts: Uint8Array[] = [];
    const hash = xxh64();
    const stream = new Decompress((part) => parts.push(part));
    const push = (bytes: Uint8Array, isLast = false) => {
      try {
        stream.push(bytes, isLast);
      } catch (cause) {
        throw failure(messageOf(cause));
      }
      for (const part of parts) hash.update(part);
      return parts.splice(0);
    };
    const flags = (await take(1))[0]!;
    const [isSingle, sizeForm] = [(flags >> 5) & 1, flags >> 6];
    const sizes = [1 - isSingle, [0, 1, 2, 4][flags & 3]!, [isSingle, 2, 4, 8][sizeForm]!];
    yield* push(
      Buffer.concat([magic, Buffer.of(flags), await take(sizes.reduce((a, b) => a + b))]),
    );
    for (let isLast = false; !isLast;) {
      const head = await take(3);
      const word = head.readUIntLE(0, 3);
      isLast = (word & 1) === 1;
      const isRepeated = ((word >> 1) & 3) === 1;
      yield* push(Buffer.concat([head, await take(isRepeated ? 1 : word >> 3)]));
    }
    const checksum = await take(flags & 4);
    yield* push(checksum, true);
    if (flags & 4 && BigInt(checksum.readUInt32LE()) !== BigInt.asUintN(32, hash.digest()))
      throw failure("its checksum is of other bytes", "CHECKSUM");
  }
}
