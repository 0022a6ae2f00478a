// Single safetensors files: their header, its length, and the data.

import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { DTYPE_BYTES, type Dtype } from "../../../src/core/dtype.ts";
import type { Random } from "../../../src/core/random.ts";
import { sizeOf } from "../../../src/core/shape.ts";
import {
  type Checkpoint,
  openSafetensors,
  readBytes,
  writeSafetensors,
} from "../../../src/files/safetensors.ts";
import { entry, fileBytes } from "../../files/safetensors-files.ts";
import { expect, reading } from "../contract.ts";
import { below, happens, mutateBytes, mutateJson, pick } from "../mutate.ts";
import { fingerprint, straightReading, type StraightTensor } from "../straight-reading.ts";
import { lay, type Prepare, subject } from "../subject.ts";

interface Case {
  readonly bytes: Uint8Array;
  readonly untouched: string;
}

export const safetensors: Prepare = async ({ folder }) => {
  const path = join(folder, "model.safetensors");
  const bases: Buffer[] = [
    Buffer.from(fileBytes("{}")),
    Buffer.from(fileBytes({ a: entry([2, 3], 0, 6, "F8_E4M3"), b: entry([0], 6, 6) }, bytesOf(6))),
  ];
  const dtypes = Object.keys(DTYPE_BYTES) as Dtype[];
  for (const names of [
    ["a"],
    ["wte.weight", "h.0.attn.c_attn.weight"],
    dtypes,
    ["__proto__", "0", "\u{1f600}"],
  ]) {
    const tensors = names.map((name, i) => {
      const dtype = dtypes[(i + names.length) % dtypes.length]!;
      const shape = [[], [3], [2, 2], [1, 0, 4]][i % 4]!;
      return { name, dtype, shape, data: bytesOf(sizeOf(shape) * DTYPE_BYTES[dtype]) };
    });
    await writeSafetensors(path, tensors, names.length > 2 ? undefined : null);
    bases.push(await readFile(path));
  }
  const untouched = bases.map((bytes) => fingerprint(straightReading(bytes)!));
  return subject<Case>({
    mutate: (random) => {
      const which = below(random, bases.length);
      return { bytes: mutateSafetensors(bases[which]!, random), untouched: untouched[which]! };
    },
    check: async (input) => {
      await lay(folder, { "model.safetensors": input.bytes });
      const expected = straightReading(input.bytes);
      const read = await reading([path], () => openSafetensors(path));
      if ("refusal" in read) {
        const isTwice = / holds the key .* twice/.test(read.refusal.message);
        expect(expected === undefined || isTwice, () => `refused: ${read.refusal.message}`);
        return "refused";
      }
      const found = await fingerprintOf(read.value);
      expect(expected !== undefined && found === fingerprint(expected), () => `read as ${found}`);
      return found === input.untouched ? "same" : "other";
    },
  });
};

/** Of a checkpoint as the program reads it. */
export async function fingerprintOf({ tensors }: Checkpoint): Promise<string> {
  const read = new Map<string, StraightTensor>();
  for (const [name, info] of tensors)
    read.set(name, { dtype: info.dtype, shape: info.shape, bytes: await readBytes(info) });
  return fingerprint(read);
}

/** Changes the bytes wherever they are, or what the header says, whose length follows. */
export function mutateSafetensors(bytes: Buffer, random: Random): Buffer {
  if (happens(random, 0.3)) return mutateBytes(bytes, random);
  const end = 8 + Number(bytes.readBigUInt64LE());
  const text = bytes.subarray(8, end).toString();
  const header = pick(random, [
    () => mutateJson(JSON.parse(text), random),
    () => mutateJson(JSON.parse(text), random),
    () => mutateNumber(text, random),
    () => mutateBytes(Buffer.from(text), random),
  ])();
  const data = happens(random, 0.2)
    ? mutateBytes(bytes.subarray(end), random)
    : bytes.subarray(end);
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(Buffer.byteLength(header)));
  return Buffer.concat([length, Buffer.from(header), data]);
}

/** A size or an offset that is slightly wrong. */
function mutateNumber(text: string, random: Random): string {
  const found = [...text.matchAll(/\b\d+\b/g)];
  if (found.length === 0) return text;
  const { index, 0: old } = pick(random, found);
  const value = Number(old) + pick(random, [-8, -1, 1, 2, 4, 8]);
  return text.slice(0, index) + value + text.slice(index + old.length);
}

function bytesOf(length: number): Uint8Array {
  return Uint8Array.from({ length }, (_, i) => i * 37 + 11);
}
