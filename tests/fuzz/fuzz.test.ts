// A short run of every kind with a fixed seed; `npm run fuzz` goes on from there.

import assert from "node:assert/strict";
import { test } from "node:test";
import { fuzz } from "./fuzz.ts";
import { type Kind, KINDS } from "./kinds/index.ts";

/** Enough to meet each mutation of a kind; a kill is two runs of the program. */
const counts: Readonly<Partial<Record<Kind, number>>> = {
  config: 100,
  tokenizer: 100,
  parquet: 60,
  arrow: 15,
  recipes: 80,
  snapshots: 50,
  hub: 40,
  kill: 1,
};

for (const kind of KINDS)
  test(`${kind}: what is damaged is refused in a sentence, or read as what it is`, async () => {
    const { faults, same, other, refused } = await fuzz(kind, {
      seed: 1,
      count: counts[kind] ?? 150,
    });
    assert.deepEqual(faults, []);
    assert.equal(same + other + refused, counts[kind] ?? 150);
  });
