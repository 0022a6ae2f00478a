// Token files: little-endian ids, raw as nanoGPT writes them, behind llm.c's header of 1,024 bytes, or NumPy's.

import { open } from "node:fs/promises";
import { UserError } from "../../core/errors.ts";
import { readUpTo } from "../../files/safetensors.ts";
import { createTokens, type Tokens } from "../document.ts";

const arrays = { 2: Uint16Array, 4: Uint32Array, 8: BigUint64Array };
type Width = keyof typeof arrays;

/** Reads all ids, whatever their width; what is no token file for the vocabulary is the user's matter. */
export async function readTokenFile(path: string, vocabSize: number): Promise<Tokens> {
  const wrong = (problem: string, hint: string) => new UserError(`${path}${problem}`, { hint });
  const handle = await open(path, "r");
  try {
    const { size } = await handle.stat();
    const header = headerOf(await readUpTo(handle, 0, headerBytes), path);
    const { offset, width = vocabSize <= 65_536 ? 2 : 4 } = header;
    const bytes = (await readUpTo(handle, offset, size - offset)).buffer;
    const { byteLength } = bytes;
    const { count = Math.floor(byteLength / width) } = header;
    if (byteLength !== count * width)
      throw wrong(
        `: ${byteLength} bytes are not ${count} ids of uint${8 * width}`,
        "is the file complete? raw ids are uint16, or uint32 for a vocabulary over 65,536",
      );
    // Read as narrower ids, every other token of a wider file would be 0: the widest that can be is what it is.
    const wider = ([8, 4] as const)
      .filter((wide) => !header.width && wide > width && count > 0 && byteLength % wide === 0)
      .map((wide) => new arrays[wide](bytes))
      .find((ids) => firstFrom(vocabSize, ids) < 0);
    if (wider && (wider.length < 8 || firstFrom(1, wider) < 0))
      throw wrong(
        ` could hold uint${8 * width} or uint${8 * wider.BYTES_PER_ELEMENT} ids`,
        "save it with numpy.save as .npy, which says what it is",
      );
    const ids = wider ?? new arrays[width](bytes);
    const bad = firstFrom(vocabSize, ids);
    if (bad >= 0)
      throw wrong(
        `: token ${bad} (byte ${offset + bad * width}) is ${ids[bad]}, the vocabulary has ${vocabSize}`,
        "was the file made with another tokenizer, or in a width other than uint16 and uint32?",
      );
    const tokens = createTokens(ids.length, vocabSize);
    if (ids instanceof BigUint64Array)
      for (let i = 0; i < ids.length; i++) tokens[i] = Number(ids[i]);
    else tokens.set(ids);
    return tokens;
  } finally {
    await handle.close();
  }
}

/** Where the first id is that is at least so large, or −1. */
function firstFrom(least: number, ids: ArrayLike<number | bigint>): number {
  for (let i = 0; i < ids.length; i++) if (ids[i]! >= least) return i;
  return -1;
}

// llm.c's first word says the width: of its GPT-2 and of its Llama 3 files.
const headerBytes = 1024;
const llmcWidths: Readonly<Record<number, Width>> = { 20240520: 2, 20240801: 4 };

/** Where the ids begin and, where a header says so, how many bytes each has and how many there are. */
function headerOf(bytes: Uint8Array, path: string) {
  const start = Buffer.from(bytes.buffer);
  const width = start.length < headerBytes ? undefined : llmcWidths[start.readInt32LE(0)];
  if (width) return { offset: headerBytes, width, count: start.readInt32LE(8) };
  if (start.length < 12 || start.toString("latin1", 1, 6) !== "NUMPY") {
    if (/\.npy$/i.test(path)) throw new UserError(`${path} is not NumPy's format`);
    return { offset: 0 };
  }
  const [from, length] = start[6]! > 1 ? [12, start.readUInt32LE(8)] : [10, start.readUInt16LE(8)];
  const header = start.toString("latin1", from, from + length);
  const [, each] = /'descr': '<[iu]([248])'/.exec(header) ?? [];
  const [, count] = /'shape': \((\d+),\)/.exec(header) ?? [];
  if (each && count)
    return { offset: from + length, width: Number(each) as Width, count: Number(count) };
  throw new UserError(`${path} holds no single row of 16, 32 or 64 bit ids, but ${header.trim()}`);
}
