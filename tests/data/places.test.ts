// What --data can name besides a file: patterns, clones of data sets; and how rows without a text are left out.
import assert from "node:assert/strict";
import { mkdir, writeFile } from "node:fs/promises";
import { basename, dirname, join, relative } from "node:path";
import { test } from "node:test";
import { gzipSync } from "node:zlib";
import { parquetWriteFile } from "hyparquet-writer";
import { loadCorpus } from "../../src/data/corpus.ts";
import { readDocuments } from "../../src/data/corpus.ts";
import { findDataFiles, isDataPath, selectSplit } from "../../src/data/readers/files.ts";
import { loadTokenizer } from "../../src/data/tokenizer/tokenizer.ts";
import { decode, kinds, writeTokenizer } from "./tiny-tokenizers.ts";
import { sharedFolder } from "../helpers.ts";

async function folderOf(files: Readonly<Record<string, string | Uint8Array>>): Promise<string> {
  const folder = sharedFolder();
  for (const [name, content] of Object.entries(files)) {
    await mkdir(dirname(join(folder, name)), { recursive: true });
    await writeFile(join(folder, name), content);
  }
  return folder;
}

/** The files by split, by their paths in the folder. */
async function splitsOf(folder: string, named = "") {
  const { splits } = await findDataFiles(
    named.startsWith(":") ? folder + named : join(folder, named),
  );
  return Object.fromEntries(
    Object.entries(splits).map(([split, files]) => [
      split,
      files.map((file) => relative(folder, file)),
    ]),
  );
}

async function textsOf(path: string, use = "evaluation") {
  const texts: string[] = [];
  const split = selectSplit(await findDataFiles(path), use);
  for await (const { text } of readDocuments(split)) texts.push(text);
  return texts.filter((text) => text !== "");
}

test("a pattern is a choice of files, of any folder where it says so", async () => {
  const folder = await folderOf({
    "a.txt": "A",
    "b.txt.gz": gzipSync("B"),
    "b.md": "M",
    "deep/c.txt": "C",
    "deep/er/d.txt": "D",
    ".hidden/e.txt": "E",
    "notes.doc": "",
  });
  assert.deepEqual(await textsOf(join(folder, "*.txt*")), ["A", "B"]);
  assert.deepEqual(await textsOf(join(folder, "?.txt")), ["A"]);
  assert.deepEqual(await textsOf(join(folder, "*")), ["A", "M", "B"]);
  assert.deepEqual(await textsOf(join(folder, "*/*.txt")), ["C"]);
  assert.deepEqual(await textsOf(join(folder, "**/*.txt")), ["A", "C", "D"]);
  assert.deepEqual(await textsOf(join(folder, "deep/**")), ["C", "D"]);
  assert.ok(isDataPath("chapters/*") && isDataPath("chapter-?") && !isDataPath("org/name"));
  await assert.rejects(findDataFiles(join(folder, "*.jsonl")), {
    name: "UserError",
    message: /no data at .*\*\.jsonl/,
  });
});

test("what a folder holds besides is told, and how folders below are read", async () => {
  const folder = await folderOf({
    "notes/a.txt": "A",
    "notes/2024/b.txt": "B",
    "notes/2025/c.md": "C",
    "notes/d.pdf": "",
    "notes/e.docx": "",
    "notes/LICENSE": "",
    "notes/.git/f.txt": "",
    "split/train.txt": "A",
    "split/val.txt": "B",
    "split/more/c.txt": "C",
    "clone/data/train.txt": "A",
    "clone/figure.png": "",
    "apart/x/a.txt": "A",
  });
  const note = async (name: string) => (await findDataFiles(join(folder, name))).note;
  const all = join(folder, "notes", "**");
  assert.equal(
    await note("notes/"),
    `notes: reading a.txt as train; not read: 2024, 2025, d.pdf, e.docx; --data '${all}' reads folders too`,
  );
  assert.deepEqual((await textsOf(all)).sort(), ["A", "B", "C"]);
  assert.match((await note("notes/**"))!, /as train; not read: d\.pdf, e\.docx$/);
  assert.match((await note("split"))!, /val\.txt as validation; not read: more$/);
  assert.match((await note("clone"))!, /: reading train\.txt as train; not read: figure\.png$/);
  assert.equal(await note("notes/2024"), undefined);
  await assert.rejects(findDataFiles(join(folder, "apart")), {
    message: /^no data at /,
    hint: /^--data '.*\*\*' reads folders too$/,
  });
});

test("a pattern's files are told apart where each says its split, and are all read where one does not", async () => {
  const folder = await folderOf({
    "train-1.txt": "",
    "train-2.txt": "",
    "val.txt": "",
    "x/test.txt": "",
    "x/y.txt": "",
  });
  assert.deepEqual(await splitsOf(folder, "*.txt"), {
    train: ["train-1.txt", "train-2.txt"],
    validation: ["val.txt"],
  });
  assert.deepEqual(await splitsOf(folder, "x/*"), { train: ["x/test.txt", "x/y.txt"] });
});

test("a clone without configs: split names in file names, below data/ where nothing else is", async () => {
  const folder = await folderOf({
    "README.md": "---\nlicense: mit\n---\n# Tales\n",
    "data/train-00000-of-00002.jsonl": "",
    "data/train-00001-of-00002.jsonl": "",
    "data/validation-00000-of-00001.jsonl": "",
    ".gitattributes": "",
  });
  assert.deepEqual(await splitsOf(folder), {
    train: ["data/train-00000-of-00002.jsonl", "data/train-00001-of-00002.jsonl"],
    validation: ["data/validation-00000-of-00001.jsonl"],
  });
});

const clone = {
  "en/first.jsonl": '{"text":"one"}\n',
  "en/second.jsonl": '{"text":"two"}\n',
  "en/held/a.jsonl": '{"text":"three"}\n',
  "de/all.csv": "text\nvier\n",
  "train.txt": "not named by the card",
};
const card = (configs: string) => `---\nlicense: mit\nconfigs:\n${configs}---\n# Tales\n`;
const english = `- config_name: en
  data_files:
  - split: train
    path: ["./en/first.jsonl", "en/sec*.jsonl"]
  - split: dev
    path: en/**/a.jsonl
  - split: train_extra
    path: en/*.jsonl
`;
const german = "- config_name: de\n  data_files: de/*.csv\n";

test("a clone's README.md says which files its splits have, by name, list and pattern", async () => {
  const folder = await folderOf({ ...clone, "README.md": card(english) });
  const expected = {
    train: ["en/first.jsonl", "en/second.jsonl"],
    validation: ["en/held/a.jsonl"],
    train_extra: ["en/first.jsonl", "en/second.jsonl"],
  };
  assert.deepEqual(await splitsOf(folder), expected);
  assert.deepEqual(await textsOf(folder), ["three"]);
  assert.deepEqual(await textsOf(`${folder}:en`, "train"), ["one", "two"]);
  const { split, name } = await findDataFiles(`${folder}@train_extra`);
  assert.deepEqual([split, name], ["train_extra", basename(folder)]);
  assert.ok(isDataPath(`${folder}:en@train_extra`));
});

test("folders named as splits, splits of their own in shards, and a config's own folder", async () => {
  const nested = await folderOf({
    "README.md": "no front matter",
    "de/train/a.jsonl": "",
    "de/validation/b.jsonl": "",
    "en/train/deep/c.jsonl": "",
    "notes/d.jsonl": "",
  });
  assert.deepEqual(await splitsOf(nested), {
    train: ["de/train/a.jsonl", "en/train/deep/c.jsonl"],
    validation: ["de/validation/b.jsonl"],
  });
  const sharded = await folderOf({
    "data/train_sft-00000-of-00002.jsonl": "",
    "data/train_sft-00001-of-00002.jsonl": "",
    "data/test_gen-00000-of-00001.jsonl": "",
    "data/wiki-train-00000-of-00001.jsonl": "",
  });
  assert.deepEqual(await splitsOf(sharded), {
    test_gen: ["data/test_gen-00000-of-00001.jsonl"],
    train_sft: ["data/train_sft-00000-of-00002.jsonl", "data/train_sft-00001-of-00002.jsonl"],
    train: ["data/wiki-train-00000-of-00001.jsonl"],
  });
  const configs = `---
configs:
  - config_name: own
    data_dir: own
  - config_name: told
    data_dir: told
    data_files: [{ split: train, path: "**/a*.txt" }]
---`;
  const dirs = await folderOf({
    "README.md": configs,
    "own/train.txt": "",
    "own/valid.txt": "",
    "told/x/a1.txt": "",
    "told/a2.txt": "",
    "told/b.txt": "",
  });
  assert.deepEqual(await splitsOf(dirs, ":own"), {
    train: ["own/train.txt"],
    validation: ["own/valid.txt"],
  });
  assert.deepEqual(await splitsOf(dirs, ":told"), { train: ["told/a2.txt", "told/x/a1.txt"] });
});

test("of several configs one is named, or the default; what is not there is told", async () => {
  const several = await folderOf({ ...clone, "README.md": card(english + german) });
  assert.deepEqual(await textsOf(`${several}:de`), ["vier"]);
  await assert.rejects(findDataFiles(several), {
    name: "UserError",
    message: /has several configs: en, de/,
    hint: /name one: .*:en/,
  });
  await assert.rejects(findDataFiles(`${several}:ed`), {
    message: /no config "ed", but en, de/,
    hint: /did you mean "en"/,
  });
  const plain = await folderOf({ "train.txt": "A" });
  for (const name of [`${plain}:en`, join(plain, "train.txt:en")])
    await assert.rejects(findDataFiles(name), { message: /has no config "en", but none/ });
  const marked = card(`${english}${german}  default: true\n`);
  assert.deepEqual(await textsOf(await folderOf({ ...clone, "README.md": marked })), ["vier"]);
  const absent = await folderOf({ "README.md": card(german) });
  await assert.rejects(findDataFiles(absent), {
    name: "UserError",
    message: /README\.md names de\/\*\.csv, and there is no such file/,
    hint: /git lfs pull/,
  });
});

test("rows without a text are refused, or left out and counted, on each side of a held-out end", async () => {
  const rows = ["one", null, "two", "three", null, null, "four"];
  const folder = await folderOf({
    "a.jsonl": rows.map((text) => JSON.stringify({ text })).join("\n"),
    "pair.jsonl": '{"prompt":"p","completion":null}\n{"prompt":"q","completion":"r"}\n',
  });
  parquetWriteFile({
    filename: join(folder, "a.parquet"),
    columnData: [{ name: "text", data: rows, type: "STRING", nullable: true }],
  });
  const tokenizer = await loadTokenizer(await writeTokenizer(kinds["byte-level (GPT-2)"]!.json));
  const cacheFolder = join(folder, "cache");
  for (const name of ["a.jsonl", "a.parquet"]) {
    const data = await findDataFiles(join(folder, name));
    const load = async (use: string, nullRows?: "skip") => {
      const notes: string[] = [];
      const options = { nullRows, cacheFolder, onNote: (note: string) => notes.push(note) };
      const { texts } = await loadCorpus(selectSplit(data, use, 0.3), tokenizer, options);
      const told = notes.map((note) => note.replace(/\d+: its text is null$/, ""));
      return [...texts.map(({ tokens }) => decode(tokenizer, tokens)), ...told];
    };
    await assert.rejects(load("train"), {
      name: "UserError",
      message: /field "text" is null, expected a string/,
      hint: /--null-rows skip/,
    });
    const [kept, heldOut] = ["without its last 30 %", "the last 30 %"].map((side, i) => {
      const part = i === 0 ? `${name} ${side}` : `${side} of ${name}`;
      const first = `${join(folder, name)}${name.endsWith("jsonl") ? ":" : ", row "}`;
      return `${part}: rows left out: ${i + 1}, first ${first}`;
    });
    assert.deepEqual(await load("train", "skip"), ["one", "two", "three", kept]);
    assert.deepEqual(await load("train", "skip"), ["one", "two", "three", kept]);
    assert.deepEqual(await load("validation", "skip"), ["four", heldOut]);
  }
  const pairs = selectSplit(await findDataFiles(join(folder, "pair.jsonl")), "train");
  const found: string[] = [];
  for await (const { text } of readDocuments(pairs, { nullRows: "skip" })) found.push(text);
  assert.deepEqual(found, ["q", "r"]);
});
