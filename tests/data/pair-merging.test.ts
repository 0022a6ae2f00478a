import assert from "node:assert/strict";
import { test } from "node:test";
import { mergePairs, mergeRanks } from "../../src/data/tokenizer/pair-merging.ts";

test("the lowest rank is merged first, the leftmost of equals, and what that makes possible after it", () => {
  const ranks = mergeRanks([
    ["a", "b"],
    ["b", "c"],
    ["ab", "c"],
    ["d", "d"],
    ["dd", "dd"],
    ["🙂", "a"],
  ]);
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
  for (const [word, expected] of examples)
    assert.equal(mergePairs(word, ranks).join(" "), expected);
});
