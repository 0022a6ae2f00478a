// Files of token ids: raw, behind llm.c's header, and NumPy's.

import { join } from "node:path";
import { readTokenFile } from "../../../src/data/readers/token-file.ts";
import { expect, reading } from "../contract.ts";
import { below, happens, mutateBytes, pick } from "../mutate.ts";
import { lay, type Prepare, subject } from "../subject.ts";

interface Case {
  readonly name: string;
  readonly bytes: Buffer;
  readonly vocabSize: number;
  readonly untouched: string;
}

export const tokens: Prepare = async ({ folder }) => {
  const bases: Case[] = [];
  for (const [width, vocabSize] of [
    [2, 300],
    [2, 50_257],
    [4, 50_257],
    [8, 50_257],
    [4, 128_256],
    [8, 128_256],
  ] as const) {
    const ids = Array.from({ length: 40 }, (_, i) => (i * i * 7919 + 1) % vocabSize);
    const raw = Buffer.concat(ids.map((id) => littleEndian(id, width)));
    const add = (name: string, bytes: Buffer) =>
      bases.push({ name, bytes, vocabSize, untouched: ids.join() });
    add("raw.bin", raw);
    add("numpy.npy", Buffer.concat([numpyHeader(width, ids.length), raw]));
    const magic = { 2: 20240520, 4: 20240801, 8: 0 }[width];
    const header = Buffer.alloc(1024);
    [magic, 1, ids.length].forEach((word, i) => header.writeInt32LE(word, 4 * i));
    if (magic) add("llmc.bin", Buffer.concat([header, raw]));
  }
  for (const { name, bytes, vocabSize, untouched } of bases) {
    await lay(folder, { [name]: bytes });
    const ids = [...(await readTokenFile(join(folder, name), vocabSize))];
    expect(ids.join() === untouched, () => `${name} is read as ${ids.join()}`);
  }
  return subject<Case>({
    mutate: (random) => {
      const base = pick(random, bases);
      const { bytes } = base;
      if (happens(random, 0.5)) return { ...base, bytes: mutateBytes(bytes, random) };
      // Aimed at what a header says.
      const end = Math.min(bytes.length, pick(random, [12, 128]));
      const head = mutateBytes(bytes.subarray(0, end), random);
      return {
        ...base,
        bytes: Buffer.concat([head, bytes.subarray(end - below(random, 2) * (head.length - end))]),
      };
    },
    check: async ({ name, bytes, vocabSize, untouched }) => {
      const path = join(folder, name);
      await lay(folder, { [name]: bytes });
      const found = await reading([path], () => readTokenFile(path, vocabSize));
      if ("refusal" in found) return "refused";
      const ids = [...found.value];
      const expected = readings(bytes).map((list) => list.join());
      expect(
        ids.every((id) => id < vocabSize),
        () => `an id of ${Math.max(...ids)}`,
      );
      expect(
        expected.includes(ids.join()),
        () => `${bytes.toString("base64")} is read as ${ids.join()}`,
      );
      return ids.join() === untouched ? "same" : "other";
    },
  });
};

/** What the bytes may mean: what their header says, else ids of any width. */
function readings(bytes: Buffer): number[][] {
  const of = (start: number, width: number) =>
    (bytes.length - start) % width === 0
      ? Array.from({ length: (bytes.length - start) / width }, (_, i) => {
          const at = start + i * width;
          return width === 2
            ? bytes.readUInt16LE(at)
            : width === 4
              ? bytes.readUInt32LE(at)
              : Number(bytes.readBigUInt64LE(at));
        })
      : [];
  if (bytes.toString("latin1", 1, 6) === "NUMPY") {
    const isLong = bytes[6]! > 1;
    const end = isLong ? 12 + bytes.readUInt32LE(8) : 10 + bytes.readUInt16LE(8);
    const header = bytes.toString("latin1", 0, end);
    const width = Number(/'descr': '<[iu]([248])'/.exec(header)?.[1]);
    return width > 0 ? [of(end, width)] : [];
  }
  const magic = bytes.length >= 1024 ? bytes.readInt32LE(0) : 0;
  if (magic === 20240520) return [of(1024, 2)];
  if (magic === 20240801) return [of(1024, 4)];
  return [2, 4, 8].map((width) => of(0, width));
}

function littleEndian(id: number, width: number): Buffer {
  const bytes = Buffer.alloc(8);
  bytes.writeBigUInt64LE(BigInt(id));
  return bytes.subarray(0, width);
}

function numpyHeader(width: number, count: number): Buffer {
  const text = `{'descr': '<u${width}', 'fortran_order': False, 'shape': (${count},), }`;
  const padded = `${text.padEnd(117)}\n`;
  const bytes = Buffer.from(`\x93NUMPY\x01\x00..${padded}`, "latin1");
  bytes.writeUInt16LE(padded.length, 8);
  return bytes;
}
