// Token files: raw little-endian uint16 ids (uint32 where the vocabulary needs it), as nanoGPT writes them, or the
// same behind the 1,024-byte header of llm.c.

import { createReadStream } from "node:fs";
import { open, type FileHandle } from "node:fs/promises";
import { UserError } from "../../core/errors.ts";
import type { FilePart } from "./data-files.ts";
import { viewTokens, type Tokens } from "../tokens.ts";

const headerBytes = 1024;
const headerMagic = 20240520;

/** Reads a share of a token file; an id outside the vocabulary or a broken size is the user's matter. */
export async function readTokenFile(part: FilePart, vocabSize: number): Promise<Tokens> {
  const handle = await open(part.path, "r");
  try {
    const { size } = await handle.stat();
    const width = vocabSize <= 65_536 ? 2 : 4;
    const header = (await hasHeader(handle, size, width)) ? headerBytes : 0;
    if (size % width !== 0) {
      const type = `uint${8 * width}`;
      throw new UserError(`${part.path}: ${size} bytes are no whole number of ${type} tokens`, {
        hint: `a token file is raw little-endian ${type} for a vocabulary of ${vocabSize}`,
      });
    }
    const count = (size - header) / width;
    const first = Math.floor(part.begin * count);
    const end = header + Math.floor(part.end * count) * width;
    const tokens = viewTokens(await readRange(part.path, header + first * width, end), vocabSize);
    const bad = tokens.findIndex((id) => id >= vocabSize);
    if (bad >= 0) {
      const offset = header + (first + bad) * width;
      throw new UserError(
        `${part.path}: token ${first + bad} (byte ${offset}) is ${tokens[bad]}, the vocabulary has ${vocabSize}`,
        { hint: "was the file made with another tokenizer, or for a larger vocabulary?" },
      );
    }
    return tokens;
  } finally {
    await handle.close();
  }
}

async function readRange(path: string, begin: number, end: number): Promise<ArrayBuffer> {
  const bytes = new Uint8Array(end - begin);
  if (begin === end) return bytes.buffer;
  let done = 0;
  for await (const chunk of createReadStream(path, { start: begin, end: end - 1 })) {
    bytes.set(chunk as Buffer, done);
    done += (chunk as Buffer).length;
  }
  if (done === bytes.length) return bytes.buffer;
  throw new UserError("the token file shrank while it was read", { exitCode: 1 });
}

/** llm.c: int32 magic, version and token count, then zeros; taken for a header only if the count fits the file. */
async function hasHeader(handle: FileHandle, size: number, width: number): Promise<boolean> {
  if (size < headerBytes) return false;
  const header = new Int32Array(3);
  await handle.read(header, 0, 12, 0);
  return header[0] === headerMagic && header[2]! * width === size - headerBytes;
}
