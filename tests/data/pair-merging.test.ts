import assert from "node:assert/strict";
import { test } from "node:test";
import { mergePairs, readMerges } from "../../src/data/tokenizer/pair-merging.ts";

const pieces = Array.of(...Array.from("abcd🙂"), "ab", "bc", "abc", "dd", "dddd", "🙂a");
const idOf = (piece: string) => pieces.indexOf(piece);
const merges = readMerges(
  ["a b", "b c", "ab c", "d d", "dd dd", "🙂 a"].map((pair) => {
    const [left, right] = pair.split(" ");
    return [left!, right!] as const;
  }),
  idOf,
  (left, right) => left + right,
);
const merged = (word: string) =>
  mergePairs(Array.from(word, idOf), merges)
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
