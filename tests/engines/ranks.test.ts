// What ranks do without MPI: sums that they share against a plain loop, and messages there and back.

import assert from "node:assert/strict";
import { test } from "node:test";
import { setTimeout } from "node:timers/promises";
import { createRandom } from "../../src/core/random.ts";
import { packed, unpacked } from "../../src/engines/ranks/message.ts";
import { openSums, type Part, type Sums } from "../../src/engines/ranks/sums.ts";

test("sums that three ranks share have the bits of a loop, whoever is first and whatever is overwritten", async () => {
  const { uniform } = createRandom(1);
  const sizes = { a: 5, b: 1, c: 13 };
  const names = Object.keys(sizes);
  const runs = Array.from({ length: 8 }, () =>
    Object.values(sizes).map((size) => Float32Array.from({ length: size }, () => uniform() - 0.5)),
  );
  const expected = new Float32Array(19);
  for (const run of runs)
    run.flatMap((values) => [...values]).forEach((value, i) => (expected[i]! += value));

  const ranks: Sums[] = [0, 1, 2].map((rank) =>
    openSums({ rank, size: 3 }, async (to: number, part: Part) => {
      await setTimeout(7 * uniform());
      await ranks[to]!.add(structuredClone(part));
    }),
  );
  await Promise.all(
    ranks.map(async (sums, rank) => {
      const held = Object.values(sizes).map((size) => new Float32Array(size));
      // The last first.
      for (const [index, run] of [...runs.entries()].reverse()) {
        if (index % 3 !== rank) continue;
        held.forEach((values, i) => values.set(run[i]!));
        const results = { nats: Float32Array.of(index), a: held[0]!, b: held[1]!, c: held[2]! };
        const rest = await sums.share(7, results, { index, names });
        assert.deepEqual(rest, { nats: Float32Array.of(index) });
      }
    }),
  );
  const parts = await Promise.all(ranks.map((sums) => sums.take(7)));
  assert.deepEqual(
    parts.flatMap((part) => [...part]),
    [...expected],
  );
});

test("a message is what it was, with large arrays left out of its bytes", () => {
  const large = new Float32Array(2 ** 15).fill(1.5);
  const message = {
    id: 3,
    map: new Map([["tokens", BigInt64Array.of(1n, -2n)]]),
    bytes: Buffer.from("abc"),
    large,
    shared: new Float32Array(new SharedArrayBuffer(12)),
  };
  const { bytes, large: left } = packed(message);
  assert.ok(bytes.length < 300);
  const got = unpacked(bytes);
  got.large.forEach((bytes, i) => bytes.set(left[i]!));
  assert.deepEqual(got.message, {
    ...message,
    bytes: Uint8Array.of(97, 98, 99),
    shared: new Float32Array(3),
  });
});
