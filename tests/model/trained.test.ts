// Real trained models: published output tokens, dumped activations and known losses.

import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { after, before, test } from "node:test";
import { boundWeights, buildForward, logitsOf } from "../../src/model/graph.ts";
import { openModel } from "../../src/model/open.ts";
import { decode, encode } from "../data/tiny-tokenizers.ts";
import { loadTokenizer } from "../../src/data/tokenizer/tokenizer.ts";
import { windowRule } from "../../src/data/windows.ts";
import type { TokenizedText } from "../../src/data/document.ts";
import { evaluationWindows } from "../../src/data/windows.ts";
import { type Engine, openEngine } from "../../src/engines/index.ts";
import { estimate } from "../../src/evaluate/statistics.ts";
import { openScorer } from "../../src/evaluate/scorer.ts";
import { allClose, sharedData, skipWithout } from "../helpers.ts";

let engine: Engine;
before(async () => (engine = await openEngine("cpu", { threads: 2 })));
after(() => engine.dispose());

/** A function from token ids to the logits of every token, for one fixed length. */
async function logitsFunction(folder: string, context: number) {
  const opened = await openModel(folder);
  const graph = buildForward(opened, { batchSize: 1, context });
  const program = await engine.compile({ logits: logitsOf(graph) }, boundWeights(opened));
  return async (ids: readonly number[]) => {
    const padded = Array.from({ length: context }, (_, i) => BigInt(ids[i] ?? 0));
    return (await program.run({ ids: BigInt64Array.from(padded) }))["logits"]!;
  };
}

const stories = sharedData("stories260k");
test("stories260k: its author's 256 greedy tokens", { skip: skipWithout(stories) }, async () => {
  const [context, vocabSize] = [257, 512];
  const logits = await logitsFunction(stories, context);
  const ids = [1]; // <s>
  while (ids.length < context) {
    const row = (await logits(ids)).subarray((ids.length - 1) * vocabSize, ids.length * vocabSize);
    ids.push(row.indexOf(row.reduce((a, b) => Math.max(a, b))));
  }
  const tokenizer = await loadTokenizer(stories);
  const expected = await readFile(sharedData("stories260k", "greedy_reference_256.txt"), "utf8");
  assert.equal(decode(tokenizer, ids.slice(1)).trim(), expected.trim());
});

test(
  "stories260k: 1.2664 nats per token on five stories",
  { skip: skipWithout(stories) },
  async () => {
    const text = await readFile(sharedData("tinystories", "five-stories.txt"), "utf8");
    const tokenizer = await loadTokenizer(stories);
    const texts = text
      .split("<|endoftext|>")
      .map((story) => story.trim())
      .filter(Boolean)
      .map((story) => Uint16Array.from([...tokenizer.prefix, ...encode(tokenizer, story)]));
    const { lossNats, numTokens } = await lossOf(
      stories,
      texts.map((tokens) => ({ tokens })),
      512,
    );
    assert.equal(numTokens, 1804);
    assert.equal(lossNats.toFixed(4), "1.2664");
  },
);

const characters = sharedData("slm4096");
test("slm4096: 0.0713 nats per character", { skip: skipWithout(characters) }, async () => {
  const text = await readFile(sharedData("slm4096", "corpus.txt"), "utf8");
  const file = await readFile(sharedData("slm4096", "char_vocab.json"), "utf8");
  const { stoi } = JSON.parse(file) as { stoi: Record<string, number> };
  const ids = Uint16Array.from(Array.from(text), (character) => stoi[character]!);
  const { lossNats } = await lossOf(characters, [{ tokens: ids }], 128);
  assert.equal(lossNats.toFixed(3), "0.071");
});

const sorter = sharedData("gpt-nano-sort");
test("gpt-nano-sort: PyTorch's dumped logits", { skip: skipWithout(sorter) }, async () => {
  const file = await readFile(sharedData("gpt-nano-sort", "expected_logits.json"), "utf8");
  const dump = JSON.parse(file) as { idx: number[][]; logits_float64: number[][][] };
  const logits = await logitsFunction(sorter, 11);
  for (const [i, ids] of dump.idx.entries())
    allClose(await logits(ids), dump.logits_float64[i]!.flat(), { atol: 1e-5 });
});

async function lossOf(folder: string, texts: readonly TokenizedText[], context: number) {
  const opened = await openModel(folder);
  const scorer = await openScorer(engine, opened, { batchSize: 4, context });
  const windows = [...evaluationWindows(texts, windowRule(undefined, context))];
  const result = estimate(await scorer.score(texts, windows));
  await scorer.dispose();
  return result;
}
