// Perplexity, its standard error and the paired interval against numbers computed by hand.

import assert from "node:assert/strict";
import { test } from "node:test";
import { estimate, pairedDelta, studentT975 } from "../../src/evaluate/results.ts";
import { allClose } from "../helpers.ts";

const windows = (...pairs: readonly (readonly [number, number])[]) =>
  pairs.map(([nats, numTokens]) => ({ nats, numTokens }));

test("perplexity is of summed nats over summed tokens, not a mean of means", () => {
  const { lossNats, perplexity, numTokens, standardError } = estimate(
    windows([6, 4], [1, 1], [5, 3]),
  );
  assert.equal(numTokens, 8);
  assert.equal(lossNats, 1.5); // 12 / 8; the mean of means is 1.389
  assert.equal(perplexity, Math.exp(1.5));
  // Residuals 6 - 6, 1 - 1.5, 5 - 4.5: sqrt(3 / 2 * (0 + 0.25 + 0.25)) / 8.
  allClose([standardError!], [Math.sqrt(0.75) / 8], { rtol: 1e-15 });
});

test("the paired interval is of the differences, in percent of the perplexity before", () => {
  const before = windows([8, 4], [10, 4], [9, 4]);
  const after = windows([7, 4], [9.4, 4], [8, 4]);
  const delta = pairedDelta(before, after);
  // Differences -1, -0.6, -1 over 4 tokens each: mean -2.6 / 12, residuals -0.4/3, 0.8/3, -0.4/3.
  const mean = -2.6 / 12;
  const error = Math.sqrt(1.5 * (0.96 / 9)) / 12;
  const margin = 4.3027 * error; // two degrees of freedom
  allClose([delta.lossNats, delta.standardError!], [mean, error], { rtol: 1e-12 });
  allClose([delta.percent], [100 * (Math.exp(mean) - 1)], { rtol: 1e-12 });
  allClose(
    delta.interval95!,
    [100 * (Math.exp(mean - margin) - 1), 100 * (Math.exp(mean + margin) - 1)],
    { rtol: 1e-12 },
  );
  allClose([delta.perplexity], [Math.exp(24.4 / 12) - Math.exp(27 / 12)], { rtol: 1e-12 });
});

test("an effect that is the same in every window is certain, however different the windows are", () => {
  const before = windows([4, 4], [40, 4], [400, 4]);
  const delta = pairedDelta(
    before,
    before.map(({ nats, numTokens }) => ({ nats: nats - 1, numTokens })),
  );
  assert.equal(delta.lossNats, -0.25);
  allClose([delta.standardError!], [0], { atol: 1e-12 });
});

test("one window has no uncertainty to state", () => {
  const one = windows([3, 2]);
  assert.equal(estimate(one).standardError, null);
  const { standardError, interval95, percent } = pairedDelta(one, one);
  assert.deepEqual(
    { standardError, interval95, percent },
    { standardError: null, interval95: null, percent: 0 },
  );
});

test("windows of another number of tokens are no pairs", () => {
  assert.throws(() => pairedDelta(windows([3, 2]), windows([3, 1])), /different windows/);
  assert.throws(() => pairedDelta(windows([3, 2]), windows([3, 2], [1, 1])), /different windows/);
});

test("Student's t to three digits of the printed tables", () => {
  const table: readonly (readonly [number, number])[] = [
    [1, 12.706],
    [2, 4.303],
    [3, 3.182],
    [4, 2.776],
    [5, 2.571],
    [6, 2.447],
    [7, 2.365],
    [8, 2.306],
    [9, 2.262],
    [10, 2.228],
    [15, 2.131],
    [20, 2.086],
    [30, 2.042],
    [60, 2.0],
    [120, 1.98],
    [1e6, 1.96],
  ];
  for (const [degrees, quantile] of table)
    allClose([studentT975(degrees)], [quantile], { atol: 1e-3 });
});
