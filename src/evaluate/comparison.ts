// Arms of a comparison from their runs' losses: the change of each, their differences in pairs, and what they cost.

import { UserError } from "../core/errors.ts";
import { differingConditions, ROUNDING_PERCENT, type RunReport } from "./results.ts";
import type { Losses, WindowLoss } from "./scorer.ts";
import { differencesOf, estimateDifference, estimateMean, holm } from "./statistics.ts";
import { SIGNIFICANCE, type Verdict } from "./statistics.ts";

export type NamedRun = Readonly<{ arm: string; seed: number; folder: string }>;
export type FailedRun = NamedRun & { readonly reason: string };
export interface ScoredRun extends NamedRun {
  readonly report: RunReport;
  /** Of the report's windows. */
  readonly before: Losses;
  readonly after: Losses;
  /** Nats per token on the way, by step. */
  readonly curve: ReadonlyMap<number, number>;
}

/** A learning rate that was tried, by half decades from the recipe's; null: the loss was not finite. */
export interface SearchPoint {
  readonly halfDecades: number;
  /** Of the first group that trains; those of others go with it. */
  readonly rate: number;
  /** On the end of the training text. */
  readonly lossNats: number | null;
}

export interface RateSearch {
  readonly chosen: SearchPoint;
  readonly steps: number;
  readonly seed: number;
  readonly points: readonly SearchPoint[];
}

export type ArmsCompared = Readonly<ReturnType<typeof compareArms>>;

const METHOD =
  "differences of loss by window, averaged over seeds; variance: over windows (each a cluster) plus over seeds; " +
  "95 % intervals by Student's t with degrees of freedom after Welch, for each alone; verdicts at 5 % after Holm";

/** Compares arms, in the order given, by the runs that are finished. */
export function compareArms(
  names: readonly string[],
  runs: readonly ScoredRun[],
  failed: readonly FailedRun[] = [],
  searches: ReadonlyMap<string, RateSearch> = new Map(),
) {
  for (const run of runs.slice(1)) checkAlike(run, runs[0]!);
  const of = (name: string) => runs.filter(({ arm }) => arm === name);
  const arms = names.filter((name) => of(name).length > 0);
  const pairs = arms.flatMap((against, i) =>
    arms.slice(i + 1).map((arm) => pairOf(of(arm), of(against))),
  );
  const corrected = holm(pairs.map(({ pValue }) => pValue ?? 1));
  const { windows, numTokens, context, dataSha256 } = runs[0]?.report.after ?? {};
  return {
    /** What all were scored on. */
    scored: { windows, numTokens, context, dataSha256 },
    method: METHOD,
    arms: arms.map((name) => ({ ...resultOf(of(name)), search: searches.get(name) ?? null })),
    pairs: pairs.map((pair, i) => {
      return { ...pair, pHolm: corrected[i]!, verdict: verdictOf(pair, corrected[i]!) };
    }),
    failed,
  };
}

/** Refuses runs that were not scored on the same windows, or began from another base. */
function checkAlike(run: ScoredRun, first: ScoredRun): void {
  const [{ report, folder }, other] = [run, first.report];
  const list = differingConditions(report.after, other.after);
  const bases = [report, other].map(({ before }) => before.modelSha256.slice(0, 12));
  if (bases[0] !== bases[1] && !bases.includes("random"))
    list.push(`the base is ${bases[0]}, was ${bases[1]}`);
  const isSame = (loss: WindowLoss, i: number) => loss.numTokens === first.after[i]?.numTokens;
  if (list.length === 0 && (run.after.length !== first.after.length || !run.after.every(isSame)))
    list.push("the windows are others");
  if (list.length > 0)
    throw new UserError(`${folder} does not compare with ${first.folder}: ${list.join("; ")}`, {
      hint: "runs compare where base, held-out text, context and reportWindows are the same",
    });
}

function resultOf(runs: readonly ScoredRun[]) {
  const mean = (of: (report: RunReport) => number) =>
    estimateMean(runs.map(({ report }) => of(report))).mean;
  const loss = (when: "before" | "after") => {
    const lossNats = mean((report) => report[when].lossNats);
    return { lossNats, perplexity: Math.exp(lossNats) };
  };
  const change = estimateDifference(runs.map(({ before, after }) => differencesOf(before, after)));
  const { trained = null, added } = runs[0]!.report.parameters;
  const seconds = mean(({ elapsedSeconds }) => elapsedSeconds);
  const gain = -change.percent;
  return {
    name: runs[0]!.arm,
    seeds: runs.map(({ seed }) => seed),
    /** Values that train, and those of them that are new. */
    trained,
    added,
    /** Means over seeds; perplexities are exp of the mean loss. */
    steps: mean(({ steps }) => steps),
    seconds,
    peakRssBytes: Math.max(...runs.map(({ report }) => report.peakRssBytes)),
    before: loss("before"),
    after: loss("after"),
    change,
    /** For each percent of perplexity; null where it did not fall. */
    cost: gain > 0 ? { trained: trained && trained / gain, seconds: seconds / gain } : null,
    runs: runs.map(({ seed, folder, report }) => {
      const { steps, finalStep, device, elapsedSeconds, peakRssBytes, after, delta } = report;
      const figures = { perplexity: after.perplexity, percent: delta.percent };
      return { seed, folder, steps, finalStep, device, elapsedSeconds, peakRssBytes, ...figures };
    }),
  };
}

/** Runs of the same seed saw the same data in the same order; where no seed is common, any two make a pair. */
function pairOf(runs: readonly ScoredRun[], others: readonly ScoredRun[]) {
  const common = runs.flatMap((run) => {
    const other = others.find(({ seed }) => seed === run.seed);
    return other ? [[run, other] as const] : [];
  });
  const number = Math.min(runs.length, others.length);
  const any = runs.slice(0, number).map((run, i) => [run, others[i]!] as const);
  const matched = common.length > 0 ? common : any;
  const differences = matched.map(([run, other]) => differencesOf(other.after, run.after));
  const difference = estimateDifference(differences);
  const [{ arm }, { arm: against }] = [runs[0]!, others[0]!];
  const equal = reached(runs, others) ?? reached(others, runs);
  return { arm, against, numSeeds: matched.length, ...difference, equal };
}

/** The first evaluation with no more loss than the others had at their last, a later one; means over seeds. */
function reached(runs: readonly ScoredRun[], others: readonly ScoredRun[]) {
  const [own, other] = [runs, others].map((of) => {
    const curves = of.map(({ curve }) => curve);
    const steps = [...curves[0]!.keys()].filter((step) => curves.every((c) => c.has(step)));
    return steps.map((step) => [step, estimateMean(curves.map((c) => c.get(step)!)).mean] as const);
  });
  const [of, target] = other!.at(-1) ?? [0, -Infinity];
  const step = own!.find(([, lossNats]) => lossNats <= target)?.[0];
  const windows = new Set([...runs, ...others].map(({ report }) => report.recipe.evalWindows));
  if (!step || step >= of || windows.size > 1) return null;
  return { arm: runs[0]!.arm, against: others[0]!.arm, step, of, ratio: of / step };
}

function verdictOf({ lossNats, percent }: ReturnType<typeof pairOf>, pHolm: number): Verdict {
  if (pHolm >= SIGNIFICANCE || Math.abs(percent) <= ROUNDING_PERCENT) return "cannot tell";
  return lossNats < 0 ? "better" : "worse";
}
