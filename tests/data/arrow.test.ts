// Arrow and Feather files as pyarrow and `datasets` write them (tests/fixtures/make_arrow.py).
import assert from "node:assert/strict";
import { readFile, writeFile } from "node:fs/promises";
import { basename, join } from "node:path";
import { test } from "node:test";
import { Builder } from "flatbuffers";
import { Table, tableToIPC, vectorFromArray, Utf8 } from "apache-arrow";
import { Message } from "apache-arrow/fb/message";
import { Schema } from "apache-arrow/fb/schema";
import { readDocuments } from "../../src/data/corpus.ts";
import type { Piece } from "../../src/data/document.ts";
import { recordBatches } from "../../src/data/readers/arrow.ts";
import { findDataFiles, selectSplit } from "../../src/data/readers/files.ts";
import type { Row, RowOptions } from "../../src/data/readers/rows.ts";
import { sharedFolder } from "../helpers.ts";

const fixtures = join(import.meta.dirname, "../fixtures/arrow");
const folder = sharedFolder();

async function textsOf(path: string, options?: RowOptions, use = "evaluation") {
  const pieces: Piece[] = [];
  const split = selectSplit(await findDataFiles(path), use);
  for await (const piece of readDocuments(split, options)) pieces.push(piece);
  assert.ok(pieces.every(({ isTarget, isLast }) => isTarget && isLast));
  return pieces.map(({ text }) => text);
}

const rows = ["Call me Ishmael. ".repeat(12), "", "字🙂 café", "the whale, the whale"];

const written = [
  "stream.arrow",
  "file.arrow",
  "large.arrow",
  "view.arrow",
  "dictionary.arrow",
  "zstd.arrow",
  "lz4.feather",
  "zstd.feather",
];
/** The same without the guard's process. */
async function textsHere(path: string, textColumn?: string) {
  const texts: unknown[] = [];
  for await (const batch of recordBatches([path, { textColumn }]))
    for (const { value } of batch)
      texts.push((value as Record<string, unknown>)[textColumn ?? "text"]);
  return texts;
}

for (const name of written)
  test(`${name}: the rows that pyarrow wrote`, async () => {
    const found = await textsHere(join(fixtures, name));
    assert.deepEqual(found, [...rows.slice(0, 3), null, rows[3]]);
  });

test("rows without a text are refused with their place, or left out", async () => {
  const path = join(fixtures, written[0]!);
  assert.deepEqual(await textsOf(path, { nullRows: "skip" }), rows);
  await assert.rejects(textsOf(path), {
    name: "UserError",
    message: /, row 3: field "text" is null, expected a string$/,
    hint: /--null-rows skip/,
  });
});

test("LZ4 whose blocks refer to earlier ones", async () => {
  const long = [1, 2, 3].map((i) =>
    Array.from({ length: 9000 }, (_, j) => `${(i * j) % 977} `).join(""),
  );
  assert.deepEqual(await textsHere(join(fixtures, "long-lz4.arrow")), long);
});

test("folders that save_to_disk wrote, of one split and of several", async () => {
  assert.deepEqual(await textsOf(join(fixtures, "one")), rows.slice(0, 2));
  const several = join(fixtures, "several");
  assert.deepEqual(await textsOf(several, {}, "train"), rows.slice(0, 2));
  assert.deepEqual(await textsOf(`${several}@test`, {}, "test"), rows.slice(3));
});

test("columns are chosen as in parquet, and what is no Arrow file is refused by name", async () => {
  const write = async (name: string, content: Uint8Array) => {
    await writeFile(join(folder, name), content);
    return join(folder, name);
  };
  const text = (...values: string[]) => vectorFromArray(values, new Utf8());
  const pairs = new Table({
    id: vectorFromArray([1, 2]),
    prompt: text("a", "b"),
    completion: text("c", "d"),
  });
  const table = await write("pairs.arrow", tableToIPC(pairs, "file"));
  const pieces: Piece[] = [];
  for await (const piece of readDocuments(selectSplit(await findDataFiles(table), "train")))
    pieces.push(piece);
  assert.deepEqual(
    pieces.map(({ text, isTarget }) => [text, isTarget]),
    [
      ["a", false],
      ["c", true],
      ["b", false],
      ["d", true],
    ],
  );
  assert.deepEqual(await textsHere(table, "completion"), ["c", "d"]);
  const whole = await readFile(join(fixtures, "file.arrow"));
  const streamed = await readFile(join(fixtures, "stream.arrow"));
  const refused: readonly (readonly [string, RegExp])[] = [
    [table, /no field "txt", only prompt, completion$/],
    [join(fixtures, "version1.feather"), /version1\.feather is Feather of version 1/],
    [await write("cut.arrow", whole.subarray(0, -20)), /cut\.arrow cannot be read as Arrow: /],
    [await write("cut2.arrow", streamed.subarray(0, -200)), /cut2\.arrow cannot be read as Arrow/],
    [await write("cut3.arrow", streamed.subarray(0, -8)), /as Arrow: it has no end$/],
    [await write("none.arrow", Buffer.alloc(0)), /none\.arrow cannot be read as Arrow/],
    [await write("plain.arrow", Buffer.from("no table at all, but text")), /as Arrow/],
  ];
  for (const [path, message] of refused)
    await assert.rejects(textsHere(path, path === table ? "txt" : undefined), (error) => {
      assert.ok(error instanceof Error && error.name === "UserError", basename(path));
      assert.match(error.message, message);
      return true;
    });
});

test("a file of a big-endian machine is refused by name", async () => {
  const builder = new Builder();
  Schema.startFieldsVector(builder, 0);
  const fields = builder.endVector();
  Schema.startSchema(builder);
  Schema.addFields(builder, fields);
  Schema.addEndianness(builder, 1);
  const schema = Schema.endSchema(builder);
  builder.finish(Message.createMessage(builder, 4, 1, schema, 0n, 0));
  const message = builder.asUint8Array();
  const length = Buffer.alloc(8, 0xff);
  length.writeInt32LE(message.length, 4);
  const end = Buffer.from("ffffffff00000000", "hex");
  const magic = Buffer.from("ARROW1\0\0");
  for (const [name, parts] of Object.entries({
    "stream.arrow": [length, message, end],
    "old.arrow": [length.subarray(4), message, Buffer.alloc(4)],
    "file.arrow": [magic, length, message, end],
  })) {
    await writeFile(join(folder, name), Buffer.concat(parts));
    await assert.rejects(textsHere(join(folder, name)), {
      name: "UserError",
      message: /\.arrow was written on a big-endian machine, which is not read$/,
    });
  }
});

test("lists of messages come as JSON has them", async () => {
  const batches = recordBatches([join(fixtures, "messages.arrow"), {}]);
  const batch = (await batches.next()).value as Row[];
  const messages = [
    { role: "user", content: "His ship?" },
    { role: "assistant", content: "The Pequod." },
  ];
  assert.deepEqual(
    batch.map(({ value }) => value),
    [{ messages }],
  );
});
