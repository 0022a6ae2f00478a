// Perplexity, its standard error and the paired interval against numbers computed by hand.

import assert from "node:assert/strict";
import { test } from "node:test";
import { estimate, pairedDelta } from "../../src/evaluate/statistics.ts";
import {
  estimateDifference,
  holm,
  mcnemar,
  studentT975,
  studentTails,
} from "../../src/evaluate/statistics.ts";
import { createRandom, type Random } from "../../src/core/random.ts";
import type { WindowLoss } from "../../src/evaluate/scorer.ts";
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
  const margin = 4.302652729749464 * error; // two degrees of freedom
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

test("Student's t as SciPy gives it, also between whole degrees of freedom", () => {
  // scipy.stats.t.ppf(0.975, ν) and 2 * scipy.stats.t.sf(5, ν), SciPy 1.
  const table: readonly (readonly [number, number, number])[] = [
    [1, 12.706204736174694, 0.1256659163780024],
    [1.3, 7.500529325562029, 0.08364237795696712],
    [2, 4.302652729749462, 0.037749551350623724],
    [5, 2.5705818356363146, 0.004104715980053323],
    [29, 2.045229642132703, 2.536631573542329e-5],
    [150, 1.9759053308966201, 1.5811815905762189e-6],
    [1e4, 1.960201239890626, 5.830326613662659e-7],
  ];
  for (const [degrees, quantile, tails] of table)
    allClose([studentT975(degrees), studentTails(5, degrees)], [quantile, tails], { rtol: 1e-11 });
  // Closed forms: of one degree 1 - 2 atan(t) / π, of two 1 - t / sqrt(2 + t²).
  for (const t of [0, 0.3, 1, 40])
    allClose(
      [studentTails(t, 1), studentTails(t, 2)],
      [1 - (2 * Math.atan(t)) / Math.PI, 1 - t / Math.sqrt(2 + t * t)],
      { atol: 1e-13 },
    );
  assert.equal(studentTails(Infinity, 7), 0);
});

test("McNemar's p-value is that of all ways in which so many answers could have changed", () => {
  for (const [won, lost] of [
    [0, 0],
    [1, 0],
    [3, 3],
    [1, 7],
    [9, 2],
    [0, 6],
  ] as const) {
    // Of every sequence of wins and losses, those at least as uneven.
    const changed = won + lost;
    let count = 0;
    for (let ways = 0; ways < 2 ** changed; ways++) {
      const wins = ways.toString(2).replaceAll("0", "").length;
      if (Math.abs(2 * wins - changed) >= Math.abs(won - lost)) count++;
    }
    const then = `${"0".repeat(won)}${"1".repeat(lost)}1100`;
    const now = `${"1".repeat(won)}${"0".repeat(lost)}1100`;
    const { pValue, verdict, ...found } = mcnemar(then, now);
    assert.deepEqual(found, { won, lost });
    allClose([pValue], [count / 2 ** changed], { rtol: 1e-12 });
    const better = won > lost ? "better" : "worse";
    assert.equal(verdict, pValue < 0.05 ? better : "cannot tell");
  }
  // More than a double's 2^-1074: the normal approximation, with its correction for continuity.
  const many = mcnemar("0".repeat(600) + "1".repeat(700), "1".repeat(600) + "0".repeat(700));
  const deviations = (700 - 600 - 1) / Math.sqrt(1300);
  allClose([many.pValue], [2 * normalTail(deviations)], { rtol: 2e-2 });
});

/** P(Z > z) for z from 0 (Abramowitz and Stegun, 26.2.17; within 7.5e-8). */
function normalTail(z: number): number {
  const t = 1 / (1 + 0.2316419 * z);
  const series = [1.330274429, -1.821255978, 1.781477937, -0.356563782, 0.31938153];
  const sum = series.reduce((sum, factor) => (sum + factor) * t, 0);
  return (Math.exp((-z * z) / 2) / Math.sqrt(2 * Math.PI)) * sum;
}

test("Holm's p-values", () => {
  // R: p.adjust(c(0.01, 0.04, 0.03, 0.005), "holm"), whose steps are those of Holm's procedure by hand:
  // 4 · 0.005, 3 · 0.01, 2 · 0.03, and 1 · 0.04, which is not under the one before.
  allClose(holm([0.01, 0.04, 0.03, 0.005]), [0.03, 0.06, 0.06, 0.02], { rtol: 1e-12 });
  assert.deepEqual(holm([0.6, 0.7]), [1, 1]);
  assert.deepEqual(holm([]), []);
});

/** Differences [seed][window] with effects of windows, of seeds, and of both together, of these deviations. */
function crossed(random: Random, numSeeds: number, numWindows: number, sd: readonly number[]) {
  const ofWindows = Array.from({ length: numWindows }, () => sd[0]! * random.normal());
  return Array.from({ length: numSeeds }, () => {
    const ofSeed = sd[1]! * random.normal();
    return ofWindows.map((effect) => {
      const numTokens = 50 + Math.floor(50 * random.uniform());
      return { nats: numTokens * (effect + ofSeed + sd[2]! * random.normal()), numTokens };
    });
  });
}
/** Every seed has the same windows. */
const aligned = (bySeed: ReturnType<typeof crossed>) =>
  bySeed.map((of) =>
    of.map(({ nats, numTokens }, w) => {
      const { numTokens: length } = bySeed[0]![w]!;
      return { nats: (nats / numTokens) * length, numTokens: length };
    }),
  );

test("the interval of one seed is that of a bootstrap over windows", () => {
  const random = createRandom(3);
  const [differences] = aligned(crossed(random, 1, 150, [0.2, 0, 0.1])) as [WindowLoss[]];
  const { interval95 } = estimateDifference([differences]);
  const draws = Array.from({ length: 4000 }, () => {
    const drawn = differences.map(() => differences[Math.floor(150 * random.uniform())]!);
    const sum = (of: (loss: WindowLoss) => number) => drawn.reduce((s, loss) => s + of(loss), 0);
    return 100 * Math.expm1(sum(({ nats }) => nats) / sum(({ numTokens }) => numTokens));
  }).sort((a, b) => a - b);
  const width = interval95![1] - interval95![0];
  allClose(interval95!, [draws[100]!, draws[3899]!], { atol: 0.1 * width });
});

test("the error over windows and seeds is that of a bootstrap over both", () => {
  const random = createRandom(4);
  const [numSeeds, numWindows] = [12, 60];
  const bySeed = aligned(crossed(random, numSeeds, numWindows, [0.2, 0.05, 0.02]));
  const any = (count: number) =>
    Array.from({ length: count }, () => Math.floor(count * random.uniform()));
  const draws = Array.from({ length: 3000 }, () => {
    const windows = any(numWindows);
    const drawn = any(numSeeds).flatMap((s) => windows.map((w) => bySeed[s]![w]!));
    return (
      drawn.reduce((sum, { nats }) => sum + nats, 0) /
      drawn.reduce((sum, { numTokens }) => sum + numTokens, 0)
    );
  });
  const mean = draws.reduce((sum, draw) => sum + draw, 0) / draws.length;
  const variance = draws.reduce((sum, draw) => sum + (draw - mean) ** 2, 0) / draws.length;
  // A bootstrap of few seeds errs by the root of 11/12, and by chance.
  allClose([estimateDifference(bySeed).standardError!], [Math.sqrt(variance)], { rtol: 0.08 });
});

test("intervals over windows and seeds hold the truth about 95 times of 100", () => {
  const random = createRandom(5);
  const trials = Array.from({ length: 300 }, () => {
    const bySeed = aligned(crossed(random, 2, 40, [0.2, 0.05, 0.02]));
    const { interval95 } = estimateDifference(bySeed);
    return interval95![0] <= 0 && interval95![1] >= 0;
  });
  const held = trials.filter(Boolean).length / trials.length;
  assert.ok(Math.abs(held - 0.95) < 0.025, `${held}`);
});

/** Half the width of an interval in standard errors, where windows and seeds have these parts of the variance. */
function widthAt(ofSeeds: number, numSeeds: number, numWindows: number): number {
  // Values about their mean whose mean has the variance 1.
  const spread = (i: number, count: number) => (i - (count - 1) / 2) * Math.sqrt(12 / (count + 1));
  const differences = Array.from({ length: numSeeds }, (_, s) =>
    Array.from({ length: numWindows }, (_, w) => {
      const window = Math.sqrt(1 - ofSeeds) * spread(w, numWindows);
      return { nats: 1e-3 * (window + Math.sqrt(ofSeeds) * spread(s, numSeeds)), numTokens: 1 };
    }),
  );
  const { interval95, standardError } = estimateDifference(differences);
  allClose([standardError!], [1e-3], { rtol: 1e-9 });
  return (Math.log1p(interval95![1] / 100) - Math.log1p(interval95![0] / 100)) / 2 / standardError!;
}

test("whatever part of the variance seeds have, 95 % intervals hold the truth in 95 ± 1.5 %, of two seeds 92.5 to 97", (t) => {
  const random = createRandom(6);
  const squares = (count: number) => {
    let sum = 0;
    for (let i = 0; i < count; i++) sum += random.normal() ** 2;
    return sum / count;
  };
  for (const numSeeds of [2, 3, 5]) {
    const numWindows = 40;
    const widths = Array.from({ length: 101 }, (_, i) => widthAt(i / 100, numSeeds, numWindows));
    const held = [0.1, 0.3, 0.5, 0.7, 0.9].map((part) => {
      let sum = 0;
      const count = 20_000;
      for (let i = 0; i < count; i++) {
        const seeds = part * squares(numSeeds - 1);
        const total = seeds + (1 - part) * squares(numWindows - 1);
        const at = (100 * seeds) / total;
        const [low, high] = [widths[Math.floor(at)]!, widths[Math.ceil(at)]!];
        const width = low + (at % 1) * (high - low);
        // An error of the true deviation, 1, is within it.
        sum += 1 - 2 * normalTail(width * Math.sqrt(total));
      }
      return sum / count;
    });
    t.diagnostic(`${numSeeds} seeds: ${held.map((share) => share.toFixed(3)).join(" ")}`);
    for (const share of numSeeds === 2 ? held.slice(2, 4) : held)
      assert.ok(Math.abs(share - 0.95) <= 0.015, `${numSeeds} seeds: ${share}`);
    for (const share of held) assert.ok(share > 0.925 && share < 0.97, `${numSeeds}: ${share}`);
  }
});
