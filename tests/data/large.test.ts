// Corpora that stay on disk: what is read by the window is what was written, in pieces of any size, and what goes wrong
// with a file is told or made good.

import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { readdir, rm, truncate, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { test } from "node:test";
import { UserError } from "../../src/core/errors.ts";
import { createRandom } from "../../src/core/random.ts";
import { loadCorpus, loadTokenCorpus } from "../../src/data/corpus.ts";
import { CHUNK, countTargets, firstFrom } from "../../src/data/document.ts";
import { findDataFiles, selectSplit } from "../../src/data/readers/files.ts";
import { throughCache } from "../../src/data/tokenizer/token-cache.ts";
import { loadTokenizer } from "../../src/data/tokenizer/tokenizer.ts";
import { trainingSet } from "../../src/data/training.ts";
import { temporaryFolder } from "../helpers.ts";
import { trainingBatches } from "./one-source.ts";
import { encode, kinds, plain, writeTokenizer } from "./tiny-tokenizers.ts";

/** Ids in parts of any length, with stretches that are no targets, over several chunks. */
function corpus(vocabSize: number) {
  const random = createRandom(vocabSize);
  const below = (n: number) => Math.floor(random.uniform() * n);
  const lengths = [1, 3 * CHUNK - 5, 2, CHUNK, 70_001];
  const total = lengths.reduce((a, b) => a + b);
  const ids = Array.from({ length: total }, () => below(vocabSize));
  const mask = ids.map(() => 1);
  const unscored: number[] = [];
  // Within a chunk, over its end, over a whole one, at its border.
  for (const [start, end] of [
    [1, 2],
    [CHUNK - 3, CHUNK + 4],
    [CHUNK + 9, 3 * CHUNK],
    [3 * CHUNK, 3 * CHUNK + 1],
    [total - 2, total],
  ] as const) {
    unscored.push(start, end);
    mask.fill(0, start, end);
  }
  const make = async (emit: (ids: Uint16Array | Uint32Array) => Promise<void> | void) => {
    for (let at = 0; at < total;) {
      const part = ids.slice(at, at + below(2 * CHUNK));
      await emit(vocabSize > 65_536 ? Uint32Array.from(part) : Uint16Array.from(part));
      at += part.length;
    }
    return { layout: { lengths, unscored }, facts: { note: "é" } };
  };
  return { ids, mask, lengths, make };
}

for (const vocabSize of [500, 100_000])
  test(`tokens of ${vocabSize} ids and their masks are the same from memory, as written, and from the cache`, async (t) => {
    const folder = await temporaryFolder(t);
    const { ids, mask, lengths, make } = corpus(vocabSize);
    const place = { folder, dependsOn: { vocabSize } };
    const none = () => assert.fail("made again");
    for (const { texts, note } of [
      await throughCache(false, vocabSize, make),
      await throughCache(place, vocabSize, make),
      await throughCache<{ note: string }>(place, vocabSize, none),
    ]) {
      assert.equal(note, "é");
      let start = 0;
      assert.deepEqual(
        texts.map(({ tokens }) => tokens.length),
        lengths,
      );
      for (const text of texts) {
        const end = start + text.tokens.length;
        const [expected, targets] = [ids.slice(start, end), mask.slice(start, end)];
        assert.deepEqual([...text.tokens], expected);
        assert.deepEqual([...text.isTarget!], targets);
        const [from, to] = [expected.length >> 2, expected.length >> 1];
        assert.deepEqual([...text.tokens.subarray(from, to)], expected.slice(from, to));
        const sum = targets.slice(from).reduce((a, b) => a + b);
        assert.equal(countTargets(text, from), sum);
        start = end;
      }
    }
  });

test("a cache that fails on the way is done without; what fails to be made is made once", async (t) => {
  const folder = join(await temporaryFolder(t), "cache");
  const { ids, make } = corpus(300);
  let times = 0;
  const place = { folder, dependsOn: {} };
  const { texts } = await throughCache(place, 300, async (emit) => {
    times++;
    await rm(folder, { recursive: true, force: true });
    return make(emit);
  });
  assert.equal(times, 2);
  assert.deepEqual(
    texts.flatMap(({ tokens }) => [...tokens]),
    ids,
  );
  const bad = async () => {
    times++;
    throw new UserError("row 7 is no row");
  };
  await assert.rejects(throughCache(place, 300, bad), { message: "row 7 is no row" });
  assert.equal(times, 3);
  assert.deepEqual(await readdir(folder), []);
});

test("texts of many chunks are tokenized into the cache as they are by themselves", async (t) => {
  const folder = await temporaryFolder(t);
  const tokenizer = await loadTokenizer(await writeTokenizer(kinds["byte-level (GPT-2)"]!.json));
  const rows = Array.from({ length: 6000 }, (_, i) => ({
    prompt: `the hen ${i}, `.repeat(1 + (i % 7)),
    completion: `and the dog's ${i * i}`,
  }));
  const path = join(folder, "rows.jsonl");
  await writeFile(path, rows.map((row) => JSON.stringify(row)).join("\n"));
  const split = selectSplit(await findDataFiles(path), "evaluation");
  const load = async (cacheFolder?: string) =>
    plain(await loadCorpus(split, tokenizer, { ...(cacheFolder && { cacheFolder }) }));
  const first = await load();
  assert.ok(first.numTokens > 3 * CHUNK);
  for (const [i, { prompt, completion }] of rows.entries())
    assert.deepEqual(first.texts[i]![0], [...encode(tokenizer, prompt + completion)]);
  assert.deepEqual(await load(join(folder, "cache")), first);
  assert.deepEqual(await load(join(folder, "cache")), first);
});

test("token files are read where they are: split, hashed, cut into blocks; ids too large are found anywhere", async (t) => {
  const folder = await temporaryFolder(t);
  const count = 3 * CHUNK + 77;
  const random = createRandom(2);
  const ids = Uint16Array.from({ length: count }, () => random.uniform() * 400);
  const wide = BigInt64Array.from(ids, BigInt);
  const bytesOf = ({ buffer }: { buffer: ArrayBuffer }) => new Uint8Array(buffer);
  const files = { "16.bin": ids, "32.bin": Uint32Array.from(ids), "64.bin": wide };
  for (const [name, content] of Object.entries(files)) {
    const path = join(folder, name);
    await writeFile(path, bytesOf(content));
    const data = await findDataFiles(path);
    const load = (use: string) => loadTokenCorpus(selectSplit(data, use, 0.3), 400);
    const [train, held] = [await load("train"), await load("validation")];
    const cut = Math.floor(0.7 * count);
    for (const [{ texts, dataSha256 }, part] of [
      [train, ids.slice(0, cut)],
      [held, ids.slice(cut)],
    ] as const) {
      assert.deepEqual([...texts[0]!.tokens], [...part]);
      assert.equal(dataSha256, createHash("sha256").update(part).digest("hex"));
    }
    const how = { packing: "auto", context: 100, endOfText: 1, prefix: [] } as const;
    const cursor = { seed: 1, epoch: 0, index: 0 };
    const onDisk = trainingBatches(trainingSet(train.texts, how), cursor);
    const inMemory = trainingBatches(trainingSet([{ tokens: ids.slice(0, cut) }], how), cursor);
    for (let i = 0; i < 5; i++) assert.deepEqual(onDisk.next(7), inMemory.next(7));
  }
  const largest = ids.slice();
  largest[2 * CHUNK + 5] = 400;
  assert.deepEqual(firstFrom(400, largest), { id: 400, at: 2 * CHUNK + 5 });
  const path = join(folder, "bad.bin");
  await writeFile(path, bytesOf(largest));
  const split = selectSplit(await findDataFiles(path), "evaluation");
  const message = new RegExp(`token ${2 * CHUNK + 5} \\(byte ${4 * CHUNK + 10}\\) is 400`);
  await assert.rejects(loadTokenCorpus(split, 400), { message });

  const { texts } = await loadTokenCorpus(split, 401);
  await truncate(path, 1000);
  assert.throws(() => texts[0]!.tokens.subarray(400, 501), {
    name: "UserError",
    message: /bad\.bin has shrunk since it was opened/,
  });
});
