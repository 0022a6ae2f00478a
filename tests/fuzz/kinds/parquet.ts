// Parquet files. Their pages carry no checksums, so a changed byte may be another text: what must hold is that it ends.

import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { type ColumnSource, parquetWriteFile } from "hyparquet-writer";
import { readParquet, rowGroups } from "../../../src/data/readers/parquet.ts";
import { rows as textsOf } from "../../../src/data/readers/rows.ts";
import { expect, reading } from "../contract.ts";
import { happens, mutateBytes, pick } from "../mutate.ts";
import { lay, type Prepare, subject } from "../subject.ts";

interface Case {
  readonly bytes: Buffer;
}

export const parquet: Prepare = async ({ folder, isGuarded }) => {
  const path = join(folder, "data.parquet");
  const texts = Array.from({ length: 12 }, (_, i) => `text ${i} ${"é字 ".repeat(i)}`);
  const text: ColumnSource = { name: "text", data: texts, type: "STRING" };
  const number: ColumnSource = { name: "n", data: texts.map((_, i) => i), type: "INT32" };
  const repeated: ColumnSource = { ...text, data: texts.map((_, i) => texts[i % 2]!) };
  const bases: { readonly bytes: Buffer; readonly rows: readonly string[] }[] = [];
  for (const [columnData, rowGroupSize] of [
    [[text], 5],
    [[text, number], 100],
    [[repeated], 12],
  ] as const)
    for (const codec of ["SNAPPY", "UNCOMPRESSED"] as const) {
      parquetWriteFile({ filename: path, columnData: [...columnData], rowGroupSize, codec });
      bases.push({ bytes: await readFile(path), rows: columnData[0].data as string[] });
    }
  const rows = async () => {
    const found: string[] = [];
    const unguarded = async function* () {
      for await (const group of rowGroups([path, {}]))
        for (const row of group) yield { ...row, place: path };
    };
    const read = textsOf(isGuarded ? readParquet : unguarded);
    for await (const { text } of read(path, {})) found.push(text);
    return found;
  };
  for (const base of bases) {
    await lay(folder, { "data.parquet": base.bytes });
    const found = await rows();
    expect(found.join("\n") === base.rows.join("\n"), () => `read as ${found.join("\n")}`);
  }
  return subject<Case & (typeof bases)[number]>({
    mutate: (random) => {
      const base = pick(random, bases);
      // What the footer says decides how the rest is read.
      const start = base.bytes.length - 8 - base.bytes.readUInt32LE(base.bytes.length - 8);
      if (happens(random, 0.4)) return { ...base, bytes: mutateBytes(base.bytes, random) };
      const [front, footer] = [base.bytes.subarray(0, start), base.bytes.subarray(start, -8)];
      const changed = mutateBytes(footer, random);
      const end = Buffer.from(base.bytes.subarray(-8));
      end.writeUInt32LE(changed.length);
      return { ...base, bytes: Buffer.concat([front, changed, end]) };
    },
    check: async (input) => {
      await lay(folder, { "data.parquet": input.bytes });
      const found = await reading([path], rows);
      if ("refusal" in found) return "refused";
      expect(
        found.value.every((row) => typeof row === "string"),
        () => "a row is no text",
      );
      return found.value.join("\n") === input.rows.join("\n") ? "same" : "other";
    },
  });
};
