// Token files: little-endian ids, raw as nanoGPT writes them, behind llm.c's header of 1,024 bytes, or NumPy's.

import { open, type FileHandle } from "node:fs/promises";
import { UserError } from "../../core/errors.ts";
import { createTokens, type Tokens } from "../tokens.ts";

/** Reads all ids, whatever their width; what is no token file for the vocabulary is the user's matter. */
export async function readTokenFile(path: string, vocabSize: number): Promise<Tokens> {
  const handle = await open(path, "r");
  try {
    const { size } = await handle.stat();
    const { offset, width, count } = await headerOf(handle, path, size);
    if (count !== undefined && count * width !== size - offset)
      throw new UserError(`${path}: the header says ${count} tokens, the size is another's`, {
        hint: "is the file complete?",
      });
    const bytes = new Uint8Array(size - offset);
    for (let done = 0; done < bytes.length;) {
      const length = Math.min(1 << 30, bytes.length - done);
      const { bytesRead } = await handle.read(bytes, done, length, offset + done);
      if (bytesRead === 0)
        throw new UserError("the token file shrank while it was read", { exitCode: 1 });
      done += bytesRead;
    }
    const usual = width ?? (vocabSize <= 65_536 ? 2 : 4);
    if (bytes.length % usual !== 0)
      throw new UserError(
        `${path}: ${bytes.length} bytes are no whole number of uint${8 * usual} tokens`,
        {
          hint: `a token file is raw little-endian uint${8 * usual} for a vocabulary of ${vocabSize}`,
        },
      );
    // Read as narrower ids, every other token of a wider file would be 0: the widest that can be is what it is.
    for (const wider of width ? [] : [8, 4].filter((wide) => wide > usual)) {
      if (bytes.length % wider !== 0) continue;
      const { tokens, bad } = decode(bytes.buffer, wider, vocabSize);
      if (bad >= 0 || tokens.length === 0) continue;
      if (tokens.length >= 8 && tokens.some((id) => id > 0)) return tokens;
      throw new UserError(`${path} could hold uint${8 * usual} or uint${8 * wider} ids`, {
        hint: "save it with numpy.save as .npy, which says what it is",
      });
    }
    const { tokens, bad, id } = decode(bytes.buffer, usual, vocabSize);
    if (bad < 0) return tokens;
    throw new UserError(
      `${path}: token ${bad} (byte ${offset + bad * usual}) is ${id}, the vocabulary has ${vocabSize}`,
      {
        hint: "was the file made with another tokenizer, or in a width other than uint16 and uint32?",
      },
    );
  } finally {
    await handle.close();
  }
}

/** The ids, and where one is not of the vocabulary. */
function decode(bytes: ArrayBuffer, width: number, vocabSize: number) {
  const words = width === 2 ? new Uint16Array(bytes) : new Uint32Array(bytes);
  const step = width === 8 ? 2 : 1;
  const own = createTokens(0, vocabSize).BYTES_PER_ELEMENT === width;
  const tokens = own ? words : createTokens(words.length / step, vocabSize);
  for (let i = 0; i < tokens.length; i++) {
    const id = words[i * step]!;
    if (id >= vocabSize || (step === 2 && words[2 * i + 1] !== 0)) return { tokens, bad: i, id };
    if (!own) tokens[i] = id;
  }
  return { tokens, bad: -1, id: 0 };
}

// llm.c's first word says the width: of its GPT-2 and of its Llama 3 files.
const headerBytes = 1024;
const llmcWidths: ReadonlyMap<number, number> = new Map([
  [20240520, 2],
  [20240801, 4],
]);

/** Where the ids begin and, where a header says so, how wide and how many they are. */
type Header =
  | { offset: number; width: number; count: number }
  | { offset: 0; width?: undefined; count?: undefined };

async function headerOf(handle: FileHandle, path: string, size: number): Promise<Header> {
  const start = Buffer.alloc(headerBytes);
  await handle.read(start, 0, headerBytes, 0);
  const llmcWidth = size < headerBytes ? undefined : llmcWidths.get(start.readInt32LE(0));
  if (llmcWidth !== undefined)
    return { offset: headerBytes, width: llmcWidth, count: start.readInt32LE(8) };
  if (start.toString("latin1", 1, 6) !== "NUMPY") {
    if (/\.npy$/i.test(path)) throw new UserError(`${path} is not NumPy's format`);
    return { offset: 0 };
  }
  const isLong = start[6]! > 1;
  const offset = isLong ? 12 + start.readUInt32LE(8) : 10 + start.readUInt16LE(8);
  const header = start.toString("latin1", isLong ? 12 : 10, offset);
  const type = /'descr': '([^']*)'/.exec(header)?.[1] ?? "?";
  const width = Number(/^<[iu]([248])$/.exec(type)?.[1]);
  const count = /'shape': \((\d+),\)/.exec(header)?.[1];
  if (count !== undefined && width > 0) return { offset, width, count: Number(count) };
  throw new UserError(`${path} holds no single row of 16, 32 or 64 bit ids, but ${header.trim()}`);
}
