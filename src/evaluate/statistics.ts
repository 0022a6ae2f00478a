// Estimates with their uncertainty: ratios over windows, means over seeds, Student's t, and Holm's correction.

import { invariant } from "../core/errors.ts";

/** A cluster of tokens, and what is summed over them. */
export type Cluster = Readonly<{ nats: number; numTokens: number }>;

/**
 * Mean loss over windows and the standard error of that ratio, each window a cluster (Cochran, Sampling Techniques, 1977,
 * section 6.3): tokens of one window are not independent.
 */
export function estimate(windows: readonly Cluster[]) {
  const count = windows.length;
  const numTokens = windows.reduce((sum, window) => sum + window.numTokens, 0);
  const lossNats = windows.reduce((sum, { nats }) => sum + nats, 0) / numTokens;
  const squares = windows.reduce((sum, w) => sum + (w.nats - lossNats * w.numTokens) ** 2, 0);
  const error = () => Math.sqrt((count / (count - 1)) * squares) / numTokens;
  return {
    /** Mean negative log-likelihood, nats per scored token: summed nats over summed tokens. */
    lossNats,
    /** exp(lossNats); comparable only under the same tokenizer, convention, context and stride. */
    perplexity: Math.exp(lossNats),
    /** Scored tokens. */
    numTokens,
    /** Of lossNats, clustered by window; null under two windows. */
    standardError: count < 2 ? null : error(),
  };
}

/** The mean of independent values and its standard error; null under two. */
export function estimateMean(values: readonly number[]) {
  const { lossNats, standardError } = estimate(values.map((nats) => ({ nats, numTokens: 1 })));
  return { mean: lossNats, standardError };
}

export type Difference = Readonly<ReturnType<typeof estimateDifference>>;

/**
 * The mean difference of losses, [seed][window], where every seed has the same windows. Its variance is that of the
 * seeds' mean over windows, each a cluster, plus that of the seeds' ratios: what two-way clustering gives without taking
 * off their common part (Cameron, Gelbach and Miller, 2011), so that it is rather too large. Of one seed nothing is known
 * but the windows.
 */
export function estimateDifference(bySeed: readonly (readonly Cluster[])[]) {
  const numSeeds = bySeed.length;
  const means = bySeed[0]!.map(({ numTokens }, w) => {
    return { nats: bySeed.reduce((sum, of) => sum + of[w]!.nats, 0) / numSeeds, numTokens };
  });
  const { lossNats, standardError: ofWindows } = estimate(means);
  const ofSeeds = estimateMean(bySeed.map((of) => estimate(of).lossNats)).standardError ?? 0;
  const percent = percentAt(lossNats);
  if (ofWindows === null)
    return { lossNats, percent, standardError: null, interval95: null, pValue: null };
  // Of one seed nothing is added, bit for bit.
  const standardError = ofSeeds > 0 ? Math.hypot(ofWindows, ofSeeds) : ofWindows;
  const share = (ofSeeds / standardError) ** 2;
  const windows = { share: 1 - share, degrees: means.length - 1 };
  const degrees =
    ofSeeds > 0 ? welchDegrees([windows, { share, degrees: numSeeds - 1 }]) : windows.degrees;
  const margin = studentT975(degrees) * standardError;
  return {
    /** Nats per token. */
    lossNats,
    /** The same as a change of perplexity. */
    percent,
    /** Of lossNats; null under two windows. */
    standardError,
    /** 95 % interval of `percent`; null under two windows. */
    interval95: [percentAt(lossNats - margin), percentAt(lossNats + margin)] as const,
    /** Two-sided, that there is no difference; null under two windows. */
    pValue: lossNats === 0 ? 1 : studentTails(Math.abs(lossNats) / standardError, degrees),
  };
}

/** The difference of two models' losses on the same windows, after minus before. */
export function pairedDelta(before: readonly Cluster[], after: readonly Cluster[]) {
  const { pValue: _, ...difference } = estimateDifference([differencesOf(before, after)]);
  const [from, to] = [estimate(before), estimate(after)];
  return { ...difference, perplexity: to.perplexity - from.perplexity };
}

/** Of each window; both have the same. */
export function differencesOf(before: readonly Cluster[], after: readonly Cluster[]) {
  invariant(before.length === after.length, "different windows");
  return after.map(({ nats, numTokens }, i) => {
    invariant(numTokens === before[i]!.numTokens, "different windows");
    return { nats: nats - before[i]!.nats, numTokens };
  });
}

/** 97.5 % quantile of the normal distribution, squared. */
const Z_SQUARE = 1.959963984540054 ** 2;

/**
 * Degrees of freedom of a sum of estimated variances, of their shares of it: those of Student's t whose 97.5 % quantile is
 * t² = z² + Σ share² (t_i² - z²), which is Welch's (1947) to first order, as Satterthwaite's 1 / Σ (share² / degrees) is, but
 * keeps to each t_i where its part is nearly all: of two seeds Satterthwaite's intervals hold the truth in 87 % there.
 */
function welchDegrees(parts: readonly Readonly<Record<"share" | "degrees", number>>[]) {
  const excess = parts.map((of) => of.share ** 2 * (studentT975(of.degrees) ** 2 - Z_SQUARE));
  const quantile = Math.sqrt(excess.reduce((sum, part) => sum + part, Z_SQUARE));
  // By bisection of 1 / degrees, between infinitely many and the fewest.
  let [low, high] = [0, 1 / Math.min(...parts.map(({ degrees }) => degrees))];
  for (let middle = 0; (middle = (low + high) / 2) !== low && middle !== high;)
    if (studentTails(quantile, 1 / middle) < 0.05) low = middle;
    else high = middle;
  return 1 / high;
}

const percentAt = (delta: number) => 100 * Math.expm1(delta);

/**
 * P(|T| > t) of Student's t: with t = √ν / tan φ its density is that of sin^(ν-1) φ, so that it is the integral up to
 * φ = atan(√ν / t) over that up to π/2.
 */
export function studentTails(t: number, degrees: number): number {
  const upTo = (end: number) => integral((angle) => Math.sin(angle) ** (degrees - 1), end);
  return Math.min(1, upTo(Math.atan2(Math.sqrt(degrees), t)) / upTo(Math.PI / 2));
}

/** 97.5 % quantile of Student's t, by bisection between those of infinitely many degrees of freedom and of one. */
export function studentT975(degrees: number): number {
  let [low, high] = [1.95, 12.8];
  for (let middle = 0; (middle = (low + high) / 2) !== low && middle !== high;)
    if (studentTails(middle, degrees) > 0.05) low = middle;
    else high = middle;
  return low;
}

/** Of the double exponential rule on [0, 1], x = 1 / (1 + exp(-π sinh u)): places and weights. */
const NODES = Array.from({ length: 257 }, (_, i) => {
  const u = i / 32 - 4;
  const [x, y] = [-1, 1].map((sign) => 1 / (1 + Math.exp(sign * Math.PI * Math.sinh(u))));
  return [x!, (Math.PI / 32) * Math.cosh(u) * x! * y!] as const;
});

/** From 0 to `end`, whatever happens at the ends (Takahasi and Mori, 1974). */
const integral = (of: (x: number) => number, end: number) =>
  end * NODES.reduce((sum, [x, weight]) => sum + weight * of(end * x), 0);

/** Holm's p-values (1979): each family of tests errs at most as often as one test does. In the order given. */
export function holm(pValues: readonly number[]): number[] {
  const order = pValues.map((_, i) => i).sort((a, b) => pValues[a]! - pValues[b]!);
  const adjusted = [...pValues];
  let least = 0;
  for (const [rank, at] of order.entries())
    adjusted[at] = least = Math.max(least, Math.min(1, (order.length - rank) * pValues[at]!));
  return adjusted;
}

export type Verdict = "better" | "worse" | "cannot tell";

/** Errors of the first kind that a verdict allows itself. */
export const SIGNIFICANCE = 0.05;

/**
 * McNemar's test (1947) in its exact form: of the answers that changed, each was won or lost with even chances. Answers
 * are digits, 1 for a right one.
 */
export function mcnemar(then: string, now: string) {
  const count = (before: string, after: string) =>
    Array.from(then).filter((was, i) => was === before && now[i] === after).length;
  const [won, lost] = [count("0", "1"), count("1", "0")];
  const pValue = Math.min(1, 2 * binomialTail(Math.min(won, lost), won + lost));
  const better: Verdict = won > lost ? "better" : "worse";
  return { won, lost, pValue, verdict: pValue < SIGNIFICANCE ? better : "cannot tell" };
}

/** How likely at most so many heads are in so many throws of a fair coin. */
function binomialTail(heads: number, throws: number): number {
  let logTerm = -throws * Math.LN2;
  let sum = Math.exp(logTerm);
  for (let i = 1; i <= heads; i++) {
    logTerm += Math.log((throws - i + 1) / i);
    sum += Math.exp(logTerm);
  }
  return sum;
}
