// The perplexity gate of a CI job: a result against a saved one, comparable or refused.

import { UserError } from "../core/errors.ts";
import { readJson } from "../files/json.ts";
import type { PerplexityResult } from "./results.ts";

export interface Comparison {
  readonly hasRegressed: boolean;
  /** Change of perplexity, percent of the baseline's. */
  readonly percent: number;
  readonly maxIncreasePercent: number;
  readonly baselinePerplexity: number;
  readonly perplexity: number;
}

/** Another machine or batch size rounds differently; less than this is no change. */
const ROUNDING_PERCENT = 1e-3;

const COMPARED = ["convention", "context", "stride", "dataSha256", "numTokens"] as const;

/** A result from a file that `--save-baseline` wrote, or the `after` of a report.json. */
export async function readBaseline(path: string): Promise<PerplexityResult> {
  const hint = "make one with: ssa eval ... --save-baseline FILE";
  const record = await readJson(path, hint);
  const result = (record["after"] ?? record) as Partial<PerplexityResult>;
  const isResult = typeof result.perplexity === "number" && typeof result.lossNats === "number";
  if (!isResult || COMPARED.some((key) => result[key] === undefined))
    throw new UserError(`${path} is neither a report.json nor a saved baseline`, { hint });
  return result as PerplexityResult;
}

/** Refuses, naming what differs, to compare what was measured in another way than the baseline. */
export function checkComparable(
  measured: Pick<PerplexityResult, (typeof COMPARED)[number]>,
  baseline: PerplexityResult,
): void {
  const differing = COMPARED.filter((key) => measured[key] !== baseline[key]);
  if (differing.length === 0) return;
  const shown = (value: string | number) => String(value).slice(0, 12);
  const list = differing.map(
    (key) => `${key} is ${shown(measured[key])}, was ${shown(baseline[key])}`,
  );
  throw new UserError(`not comparable with the baseline: ${list.join("; ")}`, {
    hint: `evaluate as the baseline was${flagsOf(baseline)}, on the same data, or save a new baseline`,
  });
}

/** The flags of `ssa eval` that measure as a result was measured; a saved file may lack what is not compared. */
function flagsOf({
  convention,
  context,
  stride,
  windows,
  windowsTotal,
}: Partial<PerplexityResult>) {
  const isPlain = convention === "disjoint" || convention === "stride";
  const flags = isPlain ? ["--context", context] : ["--convention", convention];
  if (convention === "stride") flags.push("--stride", stride);
  if (windows !== windowsTotal) flags.push("--windows", windows);
  return `: ${flags.join(" ")}`;
}

/** Compares perplexities that `checkComparable` let pass. */
export function compareWithBaseline(
  result: PerplexityResult,
  baseline: PerplexityResult,
  maxIncreasePercent: number,
): Comparison {
  checkComparable(result, baseline);
  const percent = 100 * Math.expm1(result.lossNats - baseline.lossNats);
  return {
    hasRegressed: !(percent <= maxIncreasePercent + ROUNDING_PERCENT),
    percent,
    maxIncreasePercent,
    baselinePerplexity: baseline.perplexity,
    perplexity: result.perplexity,
  };
}
