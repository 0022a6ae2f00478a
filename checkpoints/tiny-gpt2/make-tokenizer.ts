// Trains the byte-level BPE of tiny-gpt2 (Sennrich et al., 2016, over bytes as GPT-2 does) on the State of the Union
// addresses and writes tokenizer.json: npx tsx checkpoints/tiny-gpt2/make-tokenizer.ts

import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { embeddedData } from "../../src/data/readers/embedded.ts";

const numMerges = 1000;
const folder = new URL(".", import.meta.url).pathname;

// GPT-2's pre-tokenizer: words with their leading space, numbers, punctuation, runs of white space.
const words = /'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+/gu;

/** GPT-2's printable stand-in for each byte. */
function byteCharacters(): string[] {
  const isPrintable = (b: number) => (b > 32 && b < 127) || (b > 160 && b !== 173 && b < 256);
  let next = 256;
  return Array.from({ length: 256 }, (_, byte) =>
    String.fromCodePoint(isPrintable(byte) ? byte : next++),
  );
}

function countWords(texts: Iterable<string>): Map<string, number> {
  const counts = new Map<string, number>();
  for (const text of texts)
    for (const [word] of text.matchAll(words)) counts.set(word, (counts.get(word) ?? 0) + 1);
  return counts;
}

/** The merges in order: each time the most frequent pair, ties by code points, so that the result is one. */
function learnMerges(counts: ReadonlyMap<string, number>, characters: readonly string[]) {
  const pieces = [...counts].map(([word, count]) => {
    return { symbols: Array.from(Buffer.from(word), (byte) => characters[byte]!), count };
  });
  const merges: [string, string][] = [];
  while (merges.length < numMerges) {
    const pairs = new Map<string, number>();
    for (const { symbols, count } of pieces)
      for (let i = 1; i < symbols.length; i++) {
        const pair = `${symbols[i - 1]} ${symbols[i]}`;
        pairs.set(pair, (pairs.get(pair) ?? 0) + count);
      }
    const [best] = [...pairs].reduce((a, b) => (b[1] > a[1] || (b[1] === a[1] && b[0] < a[0]) ? b : a));
    const [left, right] = best.split(" ") as [string, string];
    merges.push([left, right]);
    for (const piece of pieces) piece.symbols = merged(piece.symbols, left, right);
  }
  return merges;
}

function merged(symbols: readonly string[], left: string, right: string): string[] {
  const result: string[] = [];
  for (let i = 0; i < symbols.length; i++) {
    const isPair = symbols[i] === left && symbols[i + 1] === right;
    result.push(isPair ? left + right : symbols[i]!);
    if (isPair) i++;
  }
  return result;
}

const { splits } = await embeddedData("sotu");
const characters = byteCharacters();
const merges = learnMerges(countWords(splits["train"]!.map((path) => readFileSync(path, "utf8"))), characters);
const tokens = ["<|endoftext|>", ...characters, ...merges.map(([left, right]) => left + right)];
const byteLevel = { type: "ByteLevel", add_prefix_space: false, trim_offsets: true, use_regex: true };
const flags = { single_word: false, lstrip: false, rstrip: false, normalized: false, special: true };
const tokenizer = {
  version: "1.0",
  truncation: null,
  padding: null,
  added_tokens: [{ id: 0, content: tokens[0], ...flags }],
  normalizer: null,
  pre_tokenizer: byteLevel,
  post_processor: null,
  decoder: byteLevel,
  model: {
    type: "BPE",
    dropout: null,
    unk_token: null,
    continuing_subword_prefix: null,
    end_of_word_suffix: null,
    fuse_unk: false,
    byte_fallback: false,
    ignore_merges: false,
    vocab: Object.fromEntries(tokens.map((token, id) => [token, id])),
    merges,
  },
};
writeFileSync(join(folder, "tokenizer.json"), `${JSON.stringify(tokenizer)}\n`);
console.log(`${tokens.length} tokens`);
