// Every kind of data file gives the same rows; what cannot be read is named with its place.
import assert from "node:assert/strict";
import { existsSync } from "node:fs";
import { readFile, writeFile } from "node:fs/promises";
import { basename, join } from "node:path";
import { test } from "node:test";
import { gzipSync } from "node:zlib";
import { parquetMetadata } from "hyparquet";
import { parquetWriteFile } from "hyparquet-writer";
import { loadCorpus, loadTokenCorpus } from "../../src/data/corpus.ts";
import type { Piece } from "../../src/data/document.ts";
import { readDocuments } from "../../src/data/corpus.ts";
import { findDataFiles, selectSplit } from "../../src/data/readers/files.ts";
import { formatOf, formats } from "../../src/data/readers/formats.ts";
import type { RowOptions } from "../../src/data/readers/rows.ts";
import { readJson } from "../../src/data/readers/text.ts";
import { loadTokenizer } from "../../src/data/tokenizer/tokenizer.ts";
import { encode, kinds, writeTokenizer, plain } from "./tiny-tokenizers.ts";
import { sharedFolder } from "../helpers.ts";

const folder = sharedFolder();

async function read(name: string, content: string | Uint8Array, options?: RowOptions) {
  await writeFile(join(folder, name), content);
  return await readFileOf(join(folder, name), options);
}

async function readFileOf(path: string, options?: RowOptions): Promise<Piece[]> {
  const pieces: Piece[] = [];
  const split = selectSplit(await findDataFiles(path), "evaluation");
  for await (const piece of readDocuments(split, options)) pieces.push(piece);
  return pieces;
}

const texts = ["one, two", 'say "é"\nand go', "", "字🙂"];
const json = JSON.stringify(texts.map((text, id) => ({ id, text })));
const lines = texts.map((text, id) => `${JSON.stringify({ id, text })}\n`).join("");
const csv = (mark: string) =>
  ["id", ...texts.map((_, id) => String(id))]
    .map((id, i) => `${id}${mark}"${["text", ...texts][i]!.replaceAll('"', '""')}"\r\n`)
    .join("");

const files: Readonly<Record<string, string | Uint8Array>> = {
  "a.jsonl": lines,
  "a.jsonl.gz": gzipSync(lines),
  "a.json": json,
  "pretty.json": JSON.stringify({ version: 1, data: JSON.parse(json) as unknown }, null, 2),
  "lines.json": lines,
  "a.csv": `\ufeff${csv(",")}`,
  "a.tsv": csv("\t"),
  "a.CSV.gz": gzipSync(csv(",")),
};
for (const [name, content] of Object.entries(files))
  test(`${name}: each row is a document`, async () => {
    const expected = texts.map((text) => ({ text, isTarget: true, isLast: true }));
    assert.deepEqual(await read(name, content), expected);
  });

test("the table tells each extension's format, and all of them where it knows none", async () => {
  for (const [format, { extensions }] of Object.entries(formats))
    for (const extension of extensions) assert.equal(formatOf(`a.b${extension}`), format);
  await assert.rejects(read("a.parquet.gz", ""), {
    name: "UserError",
    message:
      /a\.parquet\.gz: unknown kind of data, expected \.txt, .*\.npy, or text behind \.gz or \.zst$/,
  });
});

test("a column that is named and not there is refused in every format", async () => {
  parquetWriteFile({
    filename: join(folder, "one.parquet"),
    columnData: [{ name: "text", data: texts, type: "STRING" }],
  });
  const found = { message: /: no field "answer", only .*text/, name: "UserError" };
  for (const [name, content] of Object.entries(files))
    await assert.rejects(read(name, content, { textColumn: "answer" }), found);
  await assert.rejects(readFileOf(join(folder, "one.parquet"), { textColumn: "answer" }), found);
});

test("a .json of one conversation is one row, not a row for each message", async () => {
  const one = { conversations: [{ from: "human", value: "x" }] };
  const path = join(folder, "one.json");
  await writeFile(path, JSON.stringify(one, undefined, 2));
  const found = [];
  for await (const { value } of readJson(path)) found.push(value);
  assert.deepEqual(found, [one]);
});

test("what is no row is named with its place and what wrote it", async () => {
  const cases: readonly (readonly [string, string | Uint8Array, RegExp, RegExp?])[] = [
    [
      "null.jsonl",
      '{"text":"a"}\n{"text":null}\n',
      /null\.jsonl:2: field "text" is null/,
      /--null-rows skip/,
    ],
    ["nan.jsonl", '{"text":"a","x":NaN}\n', /nan\.jsonl:1: .*\(found NaN\)$/, /Python wrote NaN/],
    [
      "long.jsonl",
      `{"text":${"x".repeat(99)}`,
      /:1: expected a line of JSON \(Unexpected token 'x'\)$/,
    ],
    [
      "lines.jsonl",
      '{\n "text": "a"\n}\n',
      /:1: expected a line of JSON/,
      /name a file \.json where/,
    ],
    ["no.json", '{"a":1}', /no\.json: expected an array of rows/],
    ["two.json", '{"a":[],"b":[]}', /two\.json: expected an array of rows/],
    ["open.csv", 'text\n"abc\n', /open\.csv cannot be read as CSV or TSV .*line/, /quotation/],
    ["wide.csv", "text\na,b\n", /wide\.csv cannot be read as CSV or TSV .*line 2/],
    [
      "twice.csv",
      "text,text\na,b\n",
      /twice\.csv: two columns are called "text"/,
      /name of its own/,
    ],
    ["cut.jsonl.gz", gzipSync(lines).subarray(0, 40), /cut\.jsonl\.gz is not gzip, or not all/],
    ["no.txt.gz", "plain", /no\.txt\.gz is not gzip/],
  ];
  for (const [name, content, message, hint] of cases)
    await assert.rejects(read(name, content), {
      name: "UserError",
      message,
      ...(hint && { hint }),
    });
});

test("rows of prompt and completion: the answer alone is learnt and scored, joined by nothing", async () => {
  const rows = [
    { prompt: "the d", completion: "og and the hen" },
    { prompt: "", completion: "hen" },
  ];
  const path = join(folder, "prompts.jsonl");
  await writeFile(path, rows.map((row) => JSON.stringify(row)).join("\n"));
  const split = selectSplit(await findDataFiles(path), "evaluation");
  const tokenizer = await loadTokenizer(await writeTokenizer(kinds["byte-level (GPT-2)"]!.json));
  const cacheFolder = join(folder, "cache");
  const corpus = await loadCorpus(split, tokenizer, { prefix: [0], cacheFolder });
  const [whole, start] = [encode(tokenizer, "the dog and the hen"), encode(tokenizer, "the ")];
  const [text, second] = corpus.texts;
  assert.deepEqual([...text!.tokens], [0, ...whole]);
  // The token of "d" alone would be another than that of "dog": it belongs to the answer.
  const { length } = encode(tokenizer, "the d");
  const shared = [...encode(tokenizer, "the d")].findIndex((id, i) => id !== whole[i]);
  const numPrompt = shared < 0 ? length : shared;
  assert.ok(numPrompt >= start.length - 1);
  assert.deepEqual(
    [...text!.isTarget!],
    [1, ...Array.from(whole, (_, i) => (i < numPrompt ? 0 : 1))],
  );
  assert.deepEqual([...second!.tokens], [0, ...encode(tokenizer, "hen")]);
  assert.ok([...second!.isTarget!].every((flag) => flag === 1));
  assert.equal(corpus.utf8Bytes, "og and the henhen".length);
  assert.equal(corpus.numTargets, corpus.numTokens - 2 - numPrompt);
  const cached = await loadCorpus(split, tokenizer, { prefix: [0], cacheFolder });
  assert.deepEqual(plain(cached), plain(corpus));
});

/** Both sides of a held-out twentieth. */
async function sides(path: string): Promise<{ kept: string; heldOut: string }> {
  const data = await findDataFiles(path);
  const side = async (use: string) => {
    let text = "";
    for await (const piece of readDocuments(selectSplit(data, use, 0.05))) text += piece.text;
    return text;
  };
  return { kept: await side("train"), heldOut: await side("validation") };
}

test("a twentieth of all the data is held out, whatever they are cut into", async () => {
  const sentence = (i: number) => `Sentence number ${i} is about as long as any. `;
  const sentences = Array.from({ length: 400 }, (_, i) => sentence(i));
  const all = sentences.join("");
  const rows = (parts: readonly string[]) =>
    parts.map((text) => JSON.stringify({ text })).join("\n");
  const shapes: Readonly<Record<string, readonly [string, RegExp]>> = {
    "one-line.txt": [all, /^Sentence/],
    "words.txt": [all.replaceAll(".", ""), /^\w/],
    "wall.txt": [all.replace(/[^a-z]/g, ""), /^[a-z]/],
    "pairs.txt": ["🙂".repeat(1001), /^🙂/u],
    "lines.txt": [all.replaceAll(". ", ".\n"), /^Sentence/],
    "two.jsonl": [rows([all.slice(0, 9000), all.slice(9000)]), /^Sentence/],
    "last-is-short.jsonl": [rows([all, "The end."]), /^Sentence/],
    "many.jsonl": [rows(sentences), /^Sentence number 3[78]\d/],
  };
  for (const [name, [content, start]] of Object.entries(shapes)) {
    const path = join(folder, `held-${name}`);
    await writeFile(path, content);
    const { kept, heldOut } = await sides(path);
    assert.match(heldOut, start, name);
    const share = heldOut.length / (kept.length + heldOut.length);
    assert.ok(share >= 0.049 && share <= 0.0655, `${name}: ${share}`);
    if (name.endsWith("txt")) assert.equal(kept + heldOut, content, name);
  }
});

test("of several files the share is of all; files about the folder, and others than splits, are told", async () => {
  const many = sharedFolder();
  const chapter = (i: number) => `Chapter ${i}, a line of it.\n`.repeat(100 + 7 * i);
  for (let i = 10; i < 50; i++) await writeFile(join(many, `chapter_${i}.txt`), chapter(i));
  await writeFile(join(many, "requirements.txt"), "numpy\n");
  const { kept, heldOut } = await sides(many);
  const share = heldOut.length / (kept.length + heldOut.length);
  assert.ok(share >= 0.05 && share <= 0.0625, `${share}`);
  assert.match((await findDataFiles(many)).note!, /; not read: requirements\.txt$/);
  await writeFile(join(many, "train.txt"), "x");
  const named = await findDataFiles(many);
  const told = named.note!;
  assert.match(
    told,
    /: reading train\.txt as train; not read: chapter_10\.txt, .*requirements\.txt$/,
  );
  const alone = await findDataFiles(join(many, "train.txt"));
  assert.equal(alone.note, undefined);
});

/** A NumPy file of version 1. */
function npy(type: string, shape: string, ids: ArrayBufferView): Buffer {
  const header =
    `{'descr': '${type}', 'fortran_order': False, 'shape': ${shape}, }`.padEnd(117) + "\n";
  const length = Buffer.from(Uint16Array.of(header.length).buffer);
  const data = Buffer.from(ids.buffer as ArrayBuffer);
  return Buffer.concat([
    Buffer.from("\x93NUMPY\x01\x00", "latin1"),
    length,
    Buffer.from(header),
    data,
  ]);
}

test("token files of every width give the same ids, or are refused", async () => {
  const ids = Array.from({ length: 40 }, (_, i) => (i * i) % 97);
  const wide = Buffer.from(Uint32Array.from(ids).buffer);
  const narrow = Buffer.from(Uint16Array.from(ids).buffer);
  const long = BigInt64Array.from(ids, BigInt);
  const llmc = (magic: number, count: number, data: Buffer) => {
    const header = new Int32Array(256);
    header.set([magic, 1, count]);
    return Buffer.concat([Buffer.from(header.buffer), data]);
  };
  const load = async (name: string, content: Uint8Array, vocabSize = 97) => {
    await writeFile(join(folder, name), content);
    const split = selectSplit(await findDataFiles(join(folder, name)), "evaluation");
    return [...(await loadTokenCorpus(split, vocabSize)).texts[0]!.tokens];
  };
  const same: Readonly<Record<string, Uint8Array>> = {
    "16.bin": narrow,
    "32.bin": wide,
    "64.bin": Buffer.from(long.buffer),
    "gpt2.bin": llmc(20240520, 40, narrow),
    "llama3.bin": llmc(20240801, 40, wide),
    "64.npy": npy("<i8", "(40,)", long),
    "16.npy": npy("<u2", "(40,)", Uint16Array.from(ids)),
  };
  for (const [name, content] of Object.entries(same))
    assert.deepEqual(await load(name, content), ids, name);
  assert.deepEqual(await load("64.bin", Buffer.from(long.buffer), 70_000), ids);

  const refused: readonly (readonly [string, Uint8Array, RegExp])[] = [
    ["short.bin", llmc(20240520, 41, narrow), /80 bytes are not 41 ids of uint16/],
    ["short.npy", npy("<u2", "(41,)", Uint16Array.from(ids)), /80 bytes are not 41 ids of uint16/],
    ["plain.npy", narrow, /plain\.npy is not NumPy's format/],
    ["float.npy", npy("<f4", "(40,)", Float32Array.from(ids)), /no single row of 16.*<f4/],
    ["big.npy", npy(">u2", "(40,)", Uint16Array.from(ids)), /no single row/],
    ["matrix.npy", npy("<u2", "(8, 5)", Uint16Array.from(ids)), /no single row.*\(8, 5\)/],
    ["few.bin", Buffer.from(Uint16Array.of(5, 0, 7, 0).buffer), /uint16 or uint32/],
    ["zeros.bin", Buffer.alloc(80), /uint16 or uint64/],
    [
      "minus.npy",
      npy("<i8", "(2,)", BigInt64Array.of(1n, -1n)),
      /token 1 .*, the vocabulary has 97/,
    ],
  ];
  for (const [name, content, message] of refused)
    await assert.rejects(load(name, content), { name: "UserError", message });
});

test("parquet behind every compression that Python writes", async () => {
  const found = new Set<string>();
  for (const codec of ["none", "snappy", "gzip", "brotli", "zstd", "lz4"]) {
    const path = join(import.meta.dirname, `../fixtures/parquet/${codec}.parquet`);
    const { row_groups } = parquetMetadata((await readFile(path)).buffer);
    assert.equal(row_groups.length, 2);
    for (const { columns } of row_groups)
      for (const { meta_data } of columns) found.add(meta_data!.codec);
    const pieces = await readFileOf(path, { nullRows: "skip" });
    const texts = ["Call me Ishmael. ".repeat(12), "", "字🙂 café", "the whale, the whale"];
    assert.deepEqual(
      pieces.map(({ text }) => text),
      texts,
      codec,
    );
  }
  assert.deepEqual([...found], ["UNCOMPRESSED", "SNAPPY", "GZIP", "BROTLI", "ZSTD", "LZ4_RAW"]);
});

test("texts behind Zstandard, of several frames; cut and damaged ones are named", async () => {
  const at = (name: string) => join(import.meta.dirname, "../fixtures/zstd", name);
  const rows = ["Call me Ishmael. ".repeat(12), "", "字🙂 café", "the whale, the whale"];
  for (const name of ["rows.jsonl.zst", "rows.csv.zst"])
    assert.deepEqual(
      (await readFileOf(at(name))).map(({ text }) => text),
      rows,
      name,
    );
  const numbers = (i: number) => Array.from({ length: 9000 }, (_, j) => `${(i * j) % 977} `);
  const long = [1, 2, 3].flatMap(numbers).join("").slice(0, 200_000);
  const text = (await readFileOf(at("rows.txt.zst"))).map((piece) => piece.text).join("");
  assert.equal(text, `${long}${rows[2]}`);
  const bytes = await readFile(at("rows.txt.zst"));
  for (const damaged of [bytes.subarray(0, -30), bytes.subarray(0, 3), Buffer.from("plain text")])
    await assert.rejects(read("damaged.txt.zst", damaged), {
      name: "UserError",
      message: /damaged\.txt\.zst is not Zstandard, or not all of it \(somewhere after byte/,
      hint: "is it complete?",
    });
});

test("Zstandard: the checksum of a frame is looked at, frames that hold no data are skipped", async () => {
  const whole = await readFile(join(import.meta.dirname, "../fixtures/zstd/checksum.txt.zst"));
  const textOf = async (bytes: Uint8Array) =>
    (await read("sum.txt.zst", bytes)).map(({ text }) => text).join("");
  const expected = `${"Call me Ishmael. ".repeat(30)}${"the whale ".repeat(20)}`;
  assert.equal(await textOf(whole), expected);
  const skippable = Buffer.from("5b2a4d1803000000aabbcc", "hex");
  assert.equal(
    await textOf(Buffer.concat([skippable, whole, skippable, whole])),
    expected.repeat(2),
  );
  // In the last bytes: the literals and the checksum itself; in each way the frame can be read otherwise.
  for (const at of [whole.indexOf("Ishmael"), whole.length - 1]) {
    const flipped = Buffer.from(whole);
    flipped[at]! ^= 1;
    await assert.rejects(textOf(flipped), {
      name: "UserError",
      message: /sum\.txt\.zst is damaged: its checksum is of another content \(somewhere after/,
    });
  }
});

const cases = join(import.meta.dirname, "../../../shared/cases/data");
const skip = existsSync(cases) ? false : `${cases} is absent`;

test(
  "parquet: compressed as Python compresses it, and ended where the parser hangs",
  { skip },
  async () => {
    const plain = await readFileOf(join(cases, "data.jsonl.gz"));
    for (const name of ["gzip.parquet", "brotli.parquet"])
      assert.deepEqual(await readFileOf(join(cases, name)), plain, basename(name));
    await assert.rejects(readFileOf(join(cases, "hangs.parquet")), {
      name: "UserError",
      message: /hangs\.parquet as parquet came to no end/,
    });
  },
);
