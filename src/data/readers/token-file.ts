// Token files: little-endian ids, raw as nanoGPT writes them, behind llm.c's header of 1,024 bytes, or NumPy's.

import { open } from "node:fs/promises";
import { UserError } from "../../core/errors.ts";
import { readUpTo } from "../../files/safetensors.ts";
import { createTokens, type Tokens } from "../tokens.ts";

/** Reads all ids, whatever their width; what is no token file for the vocabulary is the user's matter. */
export async function readTokenFile(path: string, vocabSize: number): Promise<Tokens> {
  const handle = await open(path, "r");
  try {
    const { size } = await handle.stat();
    const header = headerOf(await readUpTo(handle, 0, headerBytes), path);
    const { buffer } = await readUpTo(handle, header.offset, size - header.offset);
    return idsOf(buffer as ArrayBuffer, header, vocabSize, path);
  } finally {
    await handle.close();
  }
}

const arrays = { 2: Uint16Array, 4: Uint32Array, 8: BigUint64Array };
type Width = keyof typeof arrays;

/** Where the ids begin and, where it says so, how many bytes each has and how many there are. */
interface Header {
  readonly offset: number;
  readonly width?: Width;
  readonly count?: number;
}

function idsOf(bytes: ArrayBuffer, header: Header, vocabSize: number, path: string): Tokens {
  const { offset, width = vocabSize <= 65_536 ? 2 : 4 } = header;
  const { count = Math.floor(bytes.byteLength / width) } = header;
  if (bytes.byteLength !== count * width)
    throw new UserError(
      `${path}: ${bytes.byteLength} bytes are not ${count} ids of uint${8 * width}`,
      {
        hint: "is the file complete? raw ids are uint16, or uint32 for a vocabulary over 65,536",
      },
    );
  // Read as narrower ids, every other token of a wider file would be 0: the widest that can be is what it is.
  const wider = ([8, 4] as const)
    .filter((wide) => !header.width && wide > width && count > 0 && bytes.byteLength % wide === 0)
    .map((wide) => new arrays[wide](bytes))
    .find((ids) => firstFrom(vocabSize, ids) < 0);
  if (wider && (wider.length < 8 || firstFrom(1, wider) < 0))
    throw new UserError(
      `${path} could hold uint${8 * width} or uint${8 * wider.BYTES_PER_ELEMENT} ids`,
      {
        hint: "save it with numpy.save as .npy, which says what it is",
      },
    );
  const ids = wider ?? new arrays[width](bytes);
  const bad = firstFrom(vocabSize, ids);
  if (bad >= 0)
    throw new UserError(
      `${path}: token ${bad} (byte ${offset + bad * width}) is ${ids[bad]}, the vocabulary has ${vocabSize}`,
      {
        hint: "was the file made with another tokenizer, or in a width other than uint16 and uint32?",
      },
    );
  const tokens = createTokens(ids.length, vocabSize);
  if (ids instanceof BigUint64Array)
    for (let i = 0; i < ids.length; i++) tokens[i] = Number(ids[i]);
  else tokens.set(ids);
  return tokens;
}

/** Where the first id is that is at least so large, or −1. */
function firstFrom(least: number, ids: ArrayLike<number | bigint>): number {
  for (let i = 0; i < ids.length; i++) if (ids[i]! >= least) return i;
  return -1;
}

// llm.c's first word says the width: of its GPT-2 and of its Llama 3 files.
const headerBytes = 1024;
const llmcWidths: Readonly<Record<number, Width>> = { 20240520: 2, 20240801: 4 };

function headerOf(bytes: Uint8Array, path: string): Header {
  const start = Buffer.from(bytes.buffer);
  const width = start.length < headerBytes ? undefined : llmcWidths[start.readInt32LE(0)];
  if (width) return { offset: headerBytes, width, count: start.readInt32LE(8) };
  if (start.toString("latin1", 1, 6) !== "NUMPY") {
    if (/\.npy$/i.test(path)) throw new UserError(`${path} is not NumPy's format`);
    return { offset: 0 };
  }
  const [from, length] = start[6]! > 1 ? [12, start.readUInt32LE(8)] : [10, start.readUInt16LE(8)];
  const header = start.toString("latin1", from, from + length);
  const [, bytesEach] = /'descr': '<[iu]([248])'/.exec(header) ?? [];
  const [, count] = /'shape': \((\d+),\)/.exec(header) ?? [];
  if (bytesEach && count)
    return { offset: from + length, width: Number(bytesEach) as Width, count: Number(count) };
  throw new UserError(`${path} holds no single row of 16, 32 or 64 bit ids, but ${header.trim()}`);
}
