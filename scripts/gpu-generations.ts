// Clears the kernels of other GPU generations in a CUDA library. The file keeps its size and offsets; what is cleared
// compresses to nothing. Layout of `.nv_fatbin`: containers, each with entries of a kind, an architecture and a size.

import { readFileSync, writeFileSync } from "node:fs";

const CONTAINER = 0xba55ed50;

/** Keeps the entries for these compute capabilities (90 is 9.0); says how many, and which capabilities there were. */
export function keepGenerations(path: string, generations: readonly number[]) {
  const bytes = readFileSync(path);
  const section = sectionNamed(bytes, ".nv_fatbin");
  const found = new Set<number>();
  let kept = 0;
  for (let at = section.start; at < section.end;) {
    if (bytes.readUInt32LE(at) !== CONTAINER) {
      at += 8; // padding
      continue;
    }
    let entry = at + bytes.readUInt16LE(at + 6);
    const end = entry + Number(bytes.readBigUInt64LE(at + 8));
    while (entry < end) {
      const start = entry + bytes.readUInt32LE(entry + 4);
      const next = start + Number(bytes.readBigUInt64LE(entry + 8));
      const generation = bytes.readUInt32LE(entry + 28);
      found.add(generation);
      if (generations.includes(generation)) kept++;
      else bytes.fill(0, start, next);
      entry = next;
    }
    at = end;
  }
  writeFileSync(path, bytes);
  return { kept, found: [...found].sort((a, b) => a - b) };
}

/** Where a section of a 64-bit ELF file lies. */
function sectionNamed(bytes: Buffer, wanted: string) {
  const offset = (at: number) => Number(bytes.readBigUInt64LE(at));
  const [table, size] = [offset(0x28), bytes.readUInt16LE(0x3a)];
  const names = offset(table + bytes.readUInt16LE(0x3e) * size + 0x18);
  for (let i = 0; i < bytes.readUInt16LE(0x3c); i++) {
    const header = table + i * size;
    const name = names + bytes.readUInt32LE(header);
    const start = offset(header + 0x18);
    if (bytes.toString("latin1", name, bytes.indexOf(0, name)) === wanted)
      return { start, end: start + offset(header + 0x20) };
  }
  throw new Error(`the library has no ${wanted}`);
}
