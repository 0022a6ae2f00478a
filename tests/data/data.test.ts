import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { mkdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { test } from "node:test";
import { plain } from "./tiny-tokenizers.ts";
import { parquetWriteFile } from "hyparquet-writer";
import { loadTokenCorpus } from "../../src/data/corpus.ts";
import { findDataFiles, selectSplit, type DataSplit } from "../../src/data/readers/files.ts";
import { readDocuments } from "../../src/data/corpus.ts";
import { joinedBy, type DocumentStream } from "../../src/data/document.ts";
import { sharedFolder } from "../helpers.ts";

async function folderOf(files: Readonly<Record<string, string | Uint8Array>>): Promise<string> {
  const folder = sharedFolder();
  for (const [name, content] of Object.entries(files)) await writeFile(join(folder, name), content);
  return folder;
}

/** The texts of a stream, whole. */
async function collect(stream: DocumentStream): Promise<string[]> {
  const texts = [];
  let text = "";
  for await (const piece of stream) {
    text += piece.text;
    if (piece.isLast) texts.push(text);
    if (piece.isLast) text = "";
  }
  assert.equal(text, "");
  return texts;
}

const names = ({ files }: DataSplit) => files.map((path) => path.split("/").at(-1));

test("a folder's files are told apart by name; evaluation means validation, then test, then all", async () => {
  const folder = await folderOf({
    "train-00000-of-00002.txt": "",
    "train-00001-of-00002.txt": "",
    "wiki.valid.raw.txt": "",
    "test.txt": "",
    "latest.txt": "",
    README: "",
  });
  const data = await findDataFiles(folder);
  assert.deepEqual(names(selectSplit(data, "train")), [
    "train-00000-of-00002.txt",
    "train-00001-of-00002.txt",
  ]);
  assert.deepEqual(names(selectSplit(data, "validation")), ["wiki.valid.raw.txt"]);
  assert.deepEqual(names(selectSplit(data, "evaluation")), ["wiki.valid.raw.txt"]);
  assert.deepEqual(names(selectSplit(data, "test")), ["test.txt"]);
  assert.throws(() => selectSplit(data, "dev"), {
    name: "UserError",
    message: /no dev split, only test, train, validation/,
  });

  const tokens = await findDataFiles(
    await folderOf({ "train.bin": "", "val.bin": "", "input.txt": "" }),
  );
  assert.deepEqual(names(selectSplit(tokens, "evaluation")), ["val.bin"]);
  const single = await findDataFiles(join(folder, "latest.txt"));
  assert.deepEqual(selectSplit(single, "evaluation").files, [join(folder, "latest.txt")]);
  const unnamed = await findDataFiles(await folderOf({ "b.txt": "B", "a.txt": "A" }));
  assert.deepEqual(await collect(readDocuments(selectSplit(unnamed, "evaluation"))), ["A", "B"]);
});

test("what is no data is refused with what would be", async () => {
  const folder = await folderOf({ "notes.doc": "", "train.txt": "", "train.bin": "" });
  await assert.rejects(findDataFiles(join(folder, "none.txt")), {
    name: "UserError",
    message: /no data at .*none\.txt/,
  });
  await assert.rejects(findDataFiles(join(folder, "notes.doc")), {
    name: "UserError",
    message:
      /notes\.doc: .*expected \.txt, \.md, \.jsonl, \.json, \.csv, \.tsv, \.parquet, \.arrow, \.feather, \.bin, \.npy, or text/,
  });
  await mkdir(join(folder, "empty"));
  await assert.rejects(findDataFiles(join(folder, "empty")), {
    name: "UserError",
    message: /no data at .*empty, expected \.txt/,
  });
  const mixed = await findDataFiles(folder);
  assert.throws(() => selectSplit(mixed, "train"), {
    name: "UserError",
    message: /several formats: train\.bin, train\.txt/,
  });
});

test("without a validation split the last twentieth is held out, cut after a line", async () => {
  const lines = Array.from({ length: 200 }, (_, i) => `line ${i}\n`);
  const text = lines.join("");
  const rows = lines.map((line) => ({ text: line }));
  const folder = await folderOf({
    "a.txt": text,
    "a.jsonl": rows.map((row) => `${JSON.stringify(row)}\n`).join(""),
    "one-line.txt": "x".repeat(100),
  });
  parquetWriteFile({
    filename: join(folder, "a.parquet"),
    columnData: [{ name: "text", data: lines, type: "STRING" }],
    rowGroupSize: 30,
  });
  const halves = async (name: string) => {
    const data = await findDataFiles(join(folder, name));
    const read = async (use: string) => await collect(readDocuments(selectSplit(data, use, 0.05)));
    return { train: await read("train"), validation: await read("validation") };
  };
  const plain = await halves("a.txt");
  assert.equal(plain.train.join("") + plain.validation.join(""), text);
  assert.match(plain.validation[0]!, /^line 190\n/);
  for (const name of ["a.jsonl", "a.parquet"]) {
    const { train, validation } = await halves(name);
    assert.deepEqual([...train, ...validation], lines);
    assert.ok(validation.length >= 10 && validation.length <= 11, `${validation.length}`);
  }
  const whole = await findDataFiles(join(folder, "a.txt"));
  assert.deepEqual(await collect(readDocuments(selectSplit(whole, "train"))), [text]);
  assert.throws(() => selectSplit(whole, "validation"), { message: /no validation split/ });
  assert.equal(selectSplit(whole, "validation", 0.05).description, "the last 5 % of a.txt");
});

test("a text is its file's bytes, whatever they are cut into; what is not UTF-8 is refused", async () => {
  const text = `\ufeff${"é字🙂\r\n".repeat(200_000)}`;
  const folder = await folderOf({ "a.txt": text, "latin1.txt": Buffer.from("caf\xe9", "latin1") });
  const read = async (name: string) =>
    await collect(
      readDocuments(selectSplit(await findDataFiles(join(folder, name)), "evaluation")),
    );
  assert.deepEqual(await read("a.txt"), [text]);
  await assert.rejects(read("latin1.txt"), {
    name: "UserError",
    message: /latin1\.txt is not UTF-8/,
  });
});

test("jsonl: rows are texts, blank lines none, errors name the line", async () => {
  const big = "x".repeat(700_000);
  const good = [{ text: "one" }, { text: big, more: 1 }, { text: "" }].map((row) =>
    JSON.stringify(row),
  );
  const folder = await folderOf({
    "good.jsonl": `${good[0]}\r\n\n${good[1]}\n${good[2]}`,
    "broken.jsonl": `${good[0]}\n\n{"text":\n`,
    "unnamed.jsonl": `{"Text":"a"}\n`,
    "number.jsonl": `{"text":1}\n`,
    "list.jsonl": `["text"]\n`,
    "late.jsonl": `${good[0]}\n`.repeat(99) + "x\n",
  });
  const read = async (name: string, field?: string, use = "evaluation") =>
    await collect(
      readDocuments(selectSplit(await findDataFiles(join(folder, name)), use, 0.05), {
        textColumn: field,
      }),
    );
  assert.deepEqual(await read("good.jsonl"), ["one", big, ""]);
  assert.deepEqual(await read("unnamed.jsonl", "Text"), ["a"]);
  await assert.rejects(read("broken.jsonl"), {
    name: "UserError",
    message: /broken\.jsonl:3: expected a line of JSON/,
  });
  await assert.rejects(read("unnamed.jsonl"), {
    message: /:1: no field "text", only Text/,
    hint: 'did you mean "Text"?',
  });
  await assert.rejects(read("number.jsonl"), {
    message: /:1: field "text" is number, expected a string/,
  });
  await assert.rejects(read("list.jsonl"), {
    message: /:1: expected an object, found \["text"\]/,
  });
  await assert.rejects(read("late.jsonl", "text", "validation"), {
    message: /late\.jsonl:100: expected/,
  });
});

test("parquet: the text column of every row group, whatever its name if it is the only one", async () => {
  const folder = await folderOf({ "broken.parquet": "PAR1 nothing PAR1" });
  const text = Array.from({ length: 25 }, (_, i) => `row ${i} é`);
  const numbers = { name: "id", data: text.map((_, i) => i), type: "INT32" } as const;
  const write = (name: string, columns: readonly string[]) => {
    const strings = columns.map(
      (column) => ({ name: column, data: text, type: "STRING" }) as const,
    );
    parquetWriteFile({
      filename: join(folder, name),
      columnData: [numbers, ...strings],
      rowGroupSize: 10,
    });
  };
  write("text.parquet", ["title", "text"]);
  write("page.parquet", ["page"]);
  write("two.parquet", ["title", "texts"]);
  const read = async (name: string, field?: string) =>
    await collect(
      readDocuments(selectSplit(await findDataFiles(join(folder, name)), "evaluation"), {
        textColumn: field,
      }),
    );
  assert.deepEqual(await read("text.parquet"), text);
  assert.deepEqual(await read("page.parquet"), text);
  assert.deepEqual(await read("two.parquet", "title"), text);
  // A name counts, also one that would have been looked for first.
  await assert.rejects(read("page.parquet", "text"), { message: /no field "text", only page/ });
  await assert.rejects(read("two.parquet"), {
    name: "UserError",
    message: /no field "text", only title, texts/,
    hint: 'did you mean "texts"?',
  });
  await assert.rejects(read("broken.parquet"), {
    name: "UserError",
    message: /cannot be read as parquet/,
  });
});

test("joined rows are one text", async () => {
  const rows = ["a", "", "b"].map((text) => ({ text, isTarget: true, isLast: true }));
  assert.deepEqual(await collect(joinedBy("\n\n").of(rows)), ["a\n\n\n\nb"]);
});

test("token files: both widths, the header of llm.c, shares; bad ids and sizes are named", async () => {
  const header = new Int32Array(256);
  header.set([20240520, 1, 3]);
  const ids = Buffer.from(Uint16Array.of(5, 6, 7).buffer);
  const folder = await folderOf({
    "narrow.bin": ids,
    "wide.bin": Buffer.from(Uint32Array.of(70_000, 1).buffer),
    "llmc.bin": Buffer.concat([Buffer.from(header.buffer), ids]),
    "odd.bin": Buffer.alloc(3),
    "none.bin": "",
    "hundred.bin": Buffer.from(Uint16Array.from({ length: 100 }, (_, i) => i).buffer),
  });
  const load = async (name: string, vocabSize: number, use = "evaluation") =>
    await loadTokenCorpus(
      selectSplit(await findDataFiles(join(folder, name)), use, 0.05),
      vocabSize,
    );
  const narrow = await load("narrow.bin", 8);
  assert.deepEqual(plain(narrow).texts, [[[5, 6, 7], undefined]]);
  assert.deepEqual([narrow.numTokens, narrow.numTargets, narrow.utf8Bytes], [3, 3, undefined]);
  assert.equal(narrow.dataSha256, createHash("sha256").update(ids).digest("hex"));
  assert.deepEqual([...(await load("wide.bin", 70_001)).texts[0]!.tokens], [70_000, 1]);
  assert.deepEqual(plain(await load("llmc.bin", 8)).texts, plain(narrow).texts);
  assert.equal((await load("hundred.bin", 100, "train")).numTokens, 95);
  assert.deepEqual(
    [...(await load("hundred.bin", 100, "validation")).texts[0]!.tokens],
    [95, 96, 97, 98, 99],
  );
  await assert.rejects(load("narrow.bin", 7), {
    name: "UserError",
    message: /token 2 \(byte 4\) is 7, the vocabulary has 7/,
  });
  await assert.rejects(load("llmc.bin", 7), { message: /token 2 \(byte 1028\) is 7/ });
  await assert.rejects(load("odd.bin", 8), {
    name: "UserError",
    message: /3 bytes are not 1 ids of uint16/,
  });
  await assert.rejects(load("none.bin", 8), {
    name: "UserError",
    message: /none\.bin holds no tokens/,
  });
  assert.equal((await readFile(join(folder, "odd.bin"))).length, 3);
});
