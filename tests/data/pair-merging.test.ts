import assert from "node:assert/strict";
import { test } from "node:test";
import { wordModels } from "../../src/data/tokenizer/word-models.ts";

const pieces = Array.of(...Array.from("abcd🙂"), "ab", "bc", "abc", "dd", "dddd", "🙂a");
const merges = ["a b", "b c", "ab c", "d d", "dd dd", "🙂 a"];
const vocab = Object.fromEntries(pieces.map((piece, id) => [piece, id]));
const encode = wordModels.BPE({ type: "BPE", vocab, merges }, new Map(Object.entries(vocab)));
const merged = (word: string) =>
  encode(word)
    .map((id) => pieces[id])
    .join(" ");

test("the lowest rank is merged first, the leftmost of equals, and what that makes possible after it", () => {
  const examples: readonly (readonly [string, string])[] = [
    ["", ""],
    ["a", "a"],
    ["ba", "b a"],
    ["abc", "abc"],
    ["bbc", "b bc"],
    ["ddd", "dd d"],
    ["ddddd", "dddd d"],
    ["🙂ab", "🙂 ab"],
    ["🙂a", "🙂a"],
  ];
  for (const [word, expected] of examples) assert.equal(merged(word), expected);
});

test("a word of 100,000 characters takes seconds at most", () => {
  const started = performance.now();
  assert.equal(merged("abcd".repeat(25_000)).length, 25_000 * 6 - 1);
  assert.ok(performance.now() - started < 5_000);
});
