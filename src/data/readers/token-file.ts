// Token files: little-endian ids, raw as nanoGPT writes them, behind llm.c's header of 1,024 bytes, or NumPy's.

import { UserError } from "../../core/errors.ts";
import { checkFile } from "../../files/atomic.ts";
import { OpenFile } from "../../files/open-file.ts";
import { createTokens, firstFrom, Stretched, type Tokens } from "../document.ts";

const arrays = { 2: Uint16Array, 4: Uint32Array, 8: BigUint64Array };
type Width = keyof typeof arrays;

/** All ids, whatever their width, read where they are; what is no token file for the vocabulary is the user's matter. */
export async function readTokenFile(path: string, vocabSize: number): Promise<Stretched<Tokens>> {
  const wrong = (problem: string, hint: string) => new UserError(`${path}${problem}`, { hint });
  await checkFile(path);
  const file = new OpenFile(path);
  const header = headerOf(file.read(0, Math.min(headerBytes, file.size)), path);
  const { offset, width: narrow = vocabSize <= 65_536 ? 2 : 4 } = header;
  const byteLength = Math.max(0, file.size - offset);
  const { count = Math.floor(byteLength / narrow) } = header;
  if (byteLength !== count * narrow)
    throw wrong(
      `: ${byteLength} bytes are not ${count} ids of uint${8 * narrow}`,
      "is the file complete? raw ids are uint16, or uint32 for a vocabulary over 65,536",
    );
  const idsOf = (width: Width) => ({
    width,
    length: byteLength / width,
    subarray: (start: number, end: number) =>
      new arrays[width](file.read(offset + start * width, (end - start) * width).buffer),
  });
  // Read as narrower ids, every other token of a wider file would be 0: the widest that can be is what it is.
  const wider = ([8, 4] as const)
    .filter((wide) => !header.width && wide > narrow && count > 0 && byteLength % wide === 0)
    .map(idsOf)
    .find((ids) => !firstFrom(vocabSize, ids));
  if (wider && (wider.length < 8 || !firstFrom(1, wider)))
    throw wrong(
      ` could hold uint${8 * narrow} or uint${8 * wider.width} ids`,
      "save it with numpy.save as .npy, which says what it is",
    );
  const ids = wider ?? idsOf(narrow);
  const bad = firstFrom(vocabSize, ids);
  if (bad)
    throw wrong(
      `: token ${bad.at} (byte ${offset + bad.at * ids.width}) is ${bad.id}, the vocabulary has ${vocabSize}`,
      "was the file made with another tokenizer, or in a width other than uint16 and uint32?",
    );
  return new Stretched(ids.length, (start, end) => {
    const stored = ids.subarray(start, end);
    const tokens = createTokens(stored.length, vocabSize);
    if (!(stored instanceof BigUint64Array)) tokens.set(stored);
    else for (let i = 0; i < stored.length; i++) tokens[i] = Number(stored[i]);
    return tokens;
  });
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
