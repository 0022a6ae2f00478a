// The first documents of large data: which they are, and what is fetched for them.
import assert from "node:assert/strict";
import { readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { test } from "node:test";
import { parquetWriteFile } from "hyparquet-writer";
import { loadCorpus, loadTokenCorpus } from "../../src/data/corpus.ts";
import { limitSplit } from "../../src/data/limit.ts";
import { findDataFiles, selectSplit } from "../../src/data/readers/files.ts";
import { loadTokenizer } from "../../src/data/tokenizer/tokenizer.ts";
import { findData, placesOf } from "../../src/model/places.ts";
import { withHub } from "../hub/fixture.ts";
import { encode, kinds, writeTokenizer } from "./tiny-tokenizers.ts";
import { sharedFolder } from "../helpers.ts";

const folder = sharedFolder();
const tokenizer = await loadTokenizer(await writeTokenizer(kinds["byte-level (GPT-2)"]!.json));
const cacheFolder = join(folder, "cache");
const tokensIn = (text: string) => encode(tokenizer, text).length;

async function partOf(path: string, maxTokens: number, use = "train", holdOut = 0) {
  const split = selectSplit(await findDataFiles(path), use, holdOut);
  const part = await limitSplit(split, tokenizer, maxTokens, {});
  return loadCorpus(part, tokenizer, { cacheFolder });
}

const words = ["the dog", " and the hen", " the", " dog and"];
const rows = Array.from({ length: 40 }, (_, i) =>
  Array.from({ length: 1 + (i % 7) }, (_, j) => words[(i + j) % 4]!).join(""),
);

test("whole rows, as many as have the tokens; the held-out end is one of that part", async () => {
  const path = join(folder, "rows.jsonl");
  await writeFile(path, rows.map((text) => JSON.stringify({ text })).join("\n"));
  const lengths = rows.map(tokensIn);
  const total = lengths.reduce((a, b) => a + b, 0);
  for (const limit of [60, 100, 101, 150, total - 1, total, 10 * total]) {
    let [sum, count] = [0, 0];
    while (count < rows.length && sum + lengths[count]! <= limit) sum += lengths[count++]!;
    const { texts, numTokens, utf8Bytes } = await partOf(path, limit);
    assert.deepEqual([texts.length, numTokens], [count, sum], String(limit));
    const sides = [
      await partOf(path, limit, "train", 0.2),
      await partOf(path, limit, "validation", 0.2),
    ];
    const bytes = sides.map((side) => side.utf8Bytes!);
    assert.equal(bytes[0]! + bytes[1]!, utf8Bytes);
    assert.ok(Math.abs(bytes[1]! / utf8Bytes! - 0.2) < 0.06, bytes.join(" "));
  }
  await assert.rejects(partOf(path, 1), {
    name: "UserError",
    message: "rows.jsonl begins with more than 1 tokens",
    hint: "raise --max-tokens",
  });
});

test("of one long text its beginning, and the cache keeps parts apart", async () => {
  const path = join(folder, "long.txt");
  const text = rows.join("\n").repeat(40);
  await writeFile(path, text);
  const whole = [...encode(tokenizer, text)];
  const found = new Set<number>();
  for (const limit of [2000, 5000, 9000]) {
    const { texts, numTokens, utf8Bytes } = await partOf(path, limit);
    assert.ok(numTokens <= limit && numTokens > limit - 1100, `${numTokens} of ${limit}`);
    assert.deepEqual([...texts[0]!.tokens], whole.slice(0, numTokens));
    assert.equal(tokensIn(text.slice(0, utf8Bytes)), numTokens);
    found.add(numTokens);
  }
  assert.equal(found.size, 3);
});

test("token files end where the tokens do", async () => {
  const path = join(folder, "ids.bin");
  const ids = Uint16Array.from({ length: 90 }, (_, i) => i);
  await writeFile(path, ids);
  const load = (limit: number, use: string) =>
    findDataFiles(path).then((data) =>
      loadTokenCorpus({ ...selectSplit(data, use, 0.25), limit }, 97),
    );
  const sides = [await load(40, "train"), await load(40, "validation")];
  assert.deepEqual(
    sides.map(({ texts }) => [...texts[0]!.tokens]),
    [Array.from(ids.slice(0, 30)), Array.from(ids.slice(30, 40))],
  );
});

test("of a data set on the hub only the files that are needed come, each once, and it goes on offline", async () => {
  const parts: Record<string, Uint8Array> = {};
  const long = rows.map((text) => text.repeat(40));
  for (let i = 0; i < 3; i++) {
    const filename = join(folder, `${i}.parquet`);
    parquetWriteFile({
      filename,
      columnData: [{ name: "text", data: long.slice(8 * i, 8 * (i + 1)), type: "STRING" }],
    });
    parts[`data/train-0000${i}-of-00003.parquet`] = await readFile(filename);
  }
  parts["data/validation-00000-of-00002.parquet"] = parts["data/train-00000-of-00003.parquet"]!;
  parts["data/validation-00001-of-00002.parquet"] = parts["data/train-00001-of-00003.parquet"]!;
  await withHub({ datasets: { "some-org/large": parts } }, async ({ hub, settings }) => {
    const fetched = () => hub.requests.filter(({ host }) => host === "cdn").length;
    const read = async (maxTokens: number, offline = false) => {
      const places = placesOf({ hub: { ...settings, offline } });
      const data = await findData("some-org/large", places, ["train", "validation"], true);
      const part = await limitSplit(selectSplit(data, "train"), tokenizer, maxTokens, {});
      return (await loadCorpus(part, tokenizer, { cacheFolder })).texts.length;
    };
    const first = long.slice(0, 8).reduce((sum, text) => sum + tokensIn(text), 0);
    const ninth = tokensIn(long[8]!);
    assert.equal(await read(first - 1), 7);
    assert.equal(fetched(), 1);
    assert.equal(await read(first + ninth), 9);
    assert.equal(fetched(), 2);
    const requests = hub.requests.length;
    assert.equal(await read(first + ninth, true), 9);
    assert.equal(await read(first + ninth), 9);
    assert.equal(hub.requests.length, requests);
    await assert.rejects(read(1e6, true), {
      name: "UserError",
      message: /offline, and data\/train-00002-of-00003\.parquet of data set "some-org\/large"/,
    });
    assert.equal(await read(1e6), 24);
    assert.equal(fetched(), 3);
    // Not for a part: all of both splits; two files have the same content as one each of those that are here.
    const places = placesOf({ hub: settings });
    await findData("some-org/large", places, ["train", "validation"]);
    assert.equal(fetched(), 3);
  });
});
