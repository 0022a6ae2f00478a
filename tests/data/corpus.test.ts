import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { existsSync } from "node:fs";
import { readdir, readFile, truncate, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { test } from "node:test";
import { loadChatTemplate } from "../../src/data/chat.ts";
import { loadCorpus, type CorpusOptions } from "../../src/data/corpus.ts";
import { joinedBy } from "../../src/data/document.ts";
import { findDataFiles, selectSplit } from "../../src/data/readers/files.ts";
import { windowRule } from "../../src/data/windows.ts";
import type { Tokenizer } from "../../src/data/tokenizer/read-tokenizer.ts";
import { loadTokenizer } from "../../src/data/tokenizer/tokenizer.ts";
import { evaluationWindows, numScored } from "../../src/data/windows.ts";
import { decode, encode, kinds, plain, writeTokenizer } from "./tiny-tokenizers.ts";
import { sharedFolder } from "../helpers.ts";

const shared = join(import.meta.dirname, "../../../shared/data");
const skip = existsSync(shared) ? false : `${shared} is absent`;

const byteLevel = loadTokenizer(await writeTokenizer(kinds["byte-level (GPT-2)"]!.json));
const neoX = loadTokenizer(
  await writeTokenizer(kinds["byte-level with NFC and space tokens (GPT-NeoX)"]!.json),
);
/** What only a cache can answer for. */
const withoutEncoding = (tokenizer: Tokenizer): Tokenizer => ({
  ...tokenizer,
  encode: () => assert.fail("encoded again"),
});
const sha256 = (text: string) => createHash("sha256").update(text).digest("hex");

async function splitOf(name: string, content: string) {
  const folder = sharedFolder();
  await writeFile(join(folder, name), content);
  return selectSplit(await findDataFiles(join(folder, name)), "evaluation");
}

test("a text file is one text, with the facts that results carry", async () => {
  const text = "the hen's eggs, é\nthe dog\n";
  const tokenizer = await byteLevel;
  const corpus = await loadCorpus(await splitOf("a.txt", text), tokenizer, { prefix: [0] });
  assert.deepEqual(
    corpus.texts.map(({ tokens }) => [...tokens]),
    [[0, ...encode(tokenizer, text)]],
  );
  assert.equal(corpus.numTokens, 1 + encode(tokenizer, text).length);
  assert.equal(corpus.numTargets, corpus.numTokens - 1);
  assert.equal(corpus.utf8Bytes, 27);
  assert.equal(corpus.numWords, null);
  assert.equal(corpus.dataSha256, sha256(text));
});

test("rows are texts, or one text by a separator", async () => {
  const rows = ["the hen", "", "the dog"];
  const split = await splitOf("a.jsonl", rows.map((text) => JSON.stringify({ text })).join("\n"));
  const tokenizer = await byteLevel;
  const apart = await loadCorpus(split, tokenizer);
  assert.deepEqual(
    apart.texts.map(({ tokens }) => decode(tokenizer, tokens)),
    ["the hen", "the dog"],
  );
  assert.equal(apart.utf8Bytes, 14);
  assert.equal(apart.dataSha256, sha256("the hen\0\0the dog"));
  const joined = await loadCorpus(split, tokenizer, { remake: joinedBy("\n\n") });
  assert.deepEqual(
    joined.texts.map(({ tokens }) => decode(tokenizer, tokens)),
    ["the hen\n\n\n\nthe dog"],
  );
  assert.equal(joined.utf8Bytes, 18);
  assert.equal(joined.dataSha256, sha256("the hen\n\n\n\nthe dog"));
  await assert.rejects(loadCorpus(await splitOf("e.txt", ""), tokenizer), {
    name: "UserError",
    message: /e\.txt holds no text/,
  });
});

test("the cache gives the same corpus; content, tokenizer and options each have their own", async () => {
  const cacheFolder = join(sharedFolder(), "deep", "cache");
  const rows = ["the hen", "the dog"]
    .map((text) => JSON.stringify({ text, other: text }))
    .join("\n");
  const split = await splitOf("a.jsonl", rows);
  const load = async (options: CorpusOptions = {}, tokenizer = byteLevel, data = split) =>
    plain(await loadCorpus(data, await tokenizer, { cacheFolder, ...options }));
  const cached = byteLevel.then(withoutEncoding);
  const first = await load();
  assert.deepEqual(await load({}, cached), first);
  assert.deepEqual(await load({}, cached, await splitOf("b.jsonl", rows)), first);
  const others = [
    await load({ remake: joinedBy("") }),
    await load({ remake: joinedBy("\n"), convention: "lm-eval" }),
    await load({ prefix: [5] }),
    await load({ textColumn: "other" }),
    await load({}, neoX),
    await load({}, byteLevel, await splitOf("a.jsonl", `${rows}\n{"text":"more"}`)),
    await load({}, byteLevel, { ...split, part: { side: "kept", share: 0.4 } }),
  ];
  assert.equal((await readdir(cacheFolder)).length, 1 + others.length);
  assert.deepEqual(await load({ prefix: [5] }, cached), others[2]);
  const plainText = await splitOf("a.txt", "the hen");
  const template = await loadChatTemplate(await byteLevel, "alpaca");
  const untouched = await load({}, byteLevel, plainText);
  assert.deepEqual(await load({ template }, cached, plainText), untouched);
  await assert.rejects(load({ template }, cached), /encoded again/);
});

test("a damaged cache is made anew; a folder that cannot be written is done without", async () => {
  const cacheFolder = sharedFolder();
  const split = await splitOf("a.txt", "the hen and the dog");
  const load = async (folder = cacheFolder, tokenizer = byteLevel) =>
    plain(await loadCorpus(split, await tokenizer, { cacheFolder: folder }));
  const good = await load();
  const path = join(cacheFolder, (await readdir(cacheFolder))[0]!);
  const bytes = await readFile(path);
  for (const offset of [0, 40, bytes.length >> 1, bytes.length - 1]) {
    const damaged = Buffer.from(bytes);
    damaged[offset]! ^= 1;
    await writeFile(path, damaged);
    assert.deepEqual(await load(), good);
    assert.deepEqual(await load(cacheFolder, byteLevel.then(withoutEncoding)), good);
  }
  for (const length of [0, 10, 33, bytes.length - 2]) {
    await truncate(path, length);
    assert.deepEqual(await load(), good);
  }
  assert.deepEqual(await readFile(path), bytes);
  assert.deepEqual(await load(path), good);
});

test("GPT-2's counts hold through a cache, from one thread and from two", { skip }, async () => {
  const cacheFolder = sharedFolder();
  const data = await findDataFiles(join(shared, "wikitext-2"));
  const tokenizer = await loadTokenizer(join(shared, "tokenizer-gpt2"));
  const train = selectSplit(data, "train");
  const two = await loadCorpus(train, tokenizer, { threads: 2, charactersAlone: 0, cacheFolder });
  const cached = await loadCorpus(train, withoutEncoding(tokenizer), { cacheFolder });
  assert.equal(two.numTokens, 217_565);
  assert.deepEqual(plain(cached), plain(two));
  const text = await readFile(join(shared, "wikitext-2/train-1mb.txt"));
  assert.equal(two.utf8Bytes, text.length);
  assert.equal(two.dataSha256, createHash("sha256").update(text).digest("hex"));
});

test("five stories as one text: 1,879 scored tokens at context 512", { skip }, async () => {
  const data = await findDataFiles(join(shared, "tinystories/five-stories.txt"));
  const tokenizer = await loadTokenizer(join(shared, "stories260k"));
  const { texts } = await loadCorpus(selectSplit(data, "evaluation"), tokenizer);
  const windows = [...evaluationWindows(texts, windowRule(undefined, 512))];
  assert.equal(texts[0]!.tokens.subarray()[0], 1);
  assert.equal(numScored(windows), 1879);
});
