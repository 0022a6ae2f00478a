// The perplexity gate of a CI job: a result against a saved one, comparable or refused.

import { UserError } from "../core/errors.ts";
import { readJson, writeJson } from "../files/json.ts";
import type { Conditions, PerplexityResult, TaskResult } from "./results.ts";

/** Another machine or batch size rounds differently; less than this is no change. */
const ROUNDING_PERCENT = 1e-3;

const COMPARED = ["task", "convention", "context", "stride", "dataSha256", "numTokens"] as const;

/** A saved result, which may lack what is not compared. */
export type Baseline = Conditions &
  Pick<TaskResult, "perplexity"> &
  Partial<Omit<PerplexityResult, "task">>;

/** A result from a file that `--save-baseline` wrote, or the `after` of a report.json. */
export async function readBaseline(path: string): Promise<Baseline> {
  const hint = "make one with: ssa eval ... --save-baseline FILE";
  const record = await readJson(path, hint);
  // Before there were other tasks, perplexity was not named.
  const result = { task: "perplexity", ...((record["after"] ?? record) as Partial<Baseline>) };
  const isResult = typeof result.perplexity === "number" && result.lossNats !== null;
  if (isResult && (["context", "dataSha256", "numTokens"] as const).every((key) => key in result))
    return result as Baseline;
  throw new UserError(`${path} is neither a report.json nor a saved baseline`, { hint });
}

/** Writes what `readBaseline` reads. */
export async function writeBaseline(path: string, result: TaskResult): Promise<void> {
  if (Number.isFinite(result.perplexity)) return writeJson(path, result);
  throw new UserError(`a perplexity of ${result.perplexity} is no baseline: ${path} not written`, {
    hint: "is it the right model for this text?",
    exitCode: 1,
  });
}

/** Refuses, naming what differs, to compare what was measured in another way than the baseline. */
export function checkComparable(measured: Conditions, baseline: Baseline): void {
  const differing = COMPARED.filter((key) => measured[key] !== baseline[key]);
  if (differing.length === 0) return;
  const shown = (value: unknown) => String(value).slice(0, 12);
  const list = differing.map(
    (key) => `${key} is ${shown(measured[key])}, was ${shown(baseline[key])}`,
  );
  throw new UserError(`not comparable with the baseline: ${list.join("; ")}`, {
    hint: `evaluate as the baseline was${flagsOf(baseline)}, on the same data, or save a new baseline`,
  });
}

/** The flags of `ssa eval` that measure as a result was measured. */
function flagsOf({ task, convention = "disjoint", context, stride, ...rest }: Baseline) {
  const isPlain = convention === "disjoint" || convention === "stride";
  const flags = isPlain ? ["--context", context] : ["--convention", convention];
  if (task !== "perplexity") flags.unshift("--task", task);
  if (convention === "stride") flags.push("--stride", stride!);
  if (rest.windows !== rest.windowsTotal) flags.push("--windows", rest.windows!);
  return `: ${flags.join(" ")}`;
}

export type Comparison = Readonly<ReturnType<typeof compareWithBaseline>>;

/** Compares perplexities, where they were measured alike; `percent` is the change, of the baseline's. */
export function compareWithBaseline(
  result: TaskResult,
  baseline: Baseline,
  maxIncreasePercent: number,
) {
  checkComparable(result, baseline);
  const [{ perplexity }, { perplexity: baselinePerplexity }] = [result, baseline];
  const percent = 100 * (perplexity / baselinePerplexity - 1);
  const hasRegressed = !(percent <= maxIncreasePercent + ROUNDING_PERCENT);
  return { hasRegressed, percent, maxIncreasePercent, baselinePerplexity, perplexity };
}
