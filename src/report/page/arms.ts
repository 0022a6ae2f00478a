// The page of a comparison: arms with their intervals, and what they cost.

import * as format from "../../core/format.ts";
import type { ArmsPage } from "../data.ts";
import { element, legend, section, table } from "./dom.ts";
import * as plots from "./plots.ts";

const change = (value: number) => format.percent(value, { isChange: true });
const range = (ends: readonly [number, number] | null) => ends?.map(change).join(" to ") ?? "";
const numbers = (...titles: readonly string[]) =>
  titles.map((title) => ({ title, kind: "number" }) as const);

export function armsPage({ name, comparison, curves }: ArmsPage): Node[] {
  const { arms, pairs, scored, failed } = comparison;
  const colors = new Map(arms.map((arm, i) => [arm.name, plots.seriesColor(i)]));
  const colorOf = (arm: string) => colors.get(arm) ?? "currentColor";
  const isOne = arms.some(({ seeds }) => seeds.length === 1);
  const { windows = 0, numTokens = 0, context = 0 } = scored;
  const drawn = curves.filter(({ points }) => points.length > 0);
  const results = arms.map(({ name, seeds, before, after, change: { percent, interval95 } }) => [
    name,
    seeds.join(", "),
    format.perplexity(before.perplexity),
    format.perplexity(after.perplexity),
    change(percent),
    range(interval95),
  ]);
  const verdicts = pairs.map(({ arm, against, percent, interval95, pHolm, verdict }) => [
    arm,
    against,
    change(percent),
    range(interval95),
    pHolm < 0.001 ? "<0.001" : pHolm.toFixed(3),
    verdict,
  ]);
  const costs = arms.map(({ name, trained, steps, seconds, peakRssBytes, cost }) => [
    name,
    trained === null ? "" : format.integer(trained),
    format.integer(steps),
    format.duration(seconds),
    format.bytes(peakRssBytes),
    cost?.trained ? format.integer(cost.trained) : "",
    cost ? format.duration(cost.seconds) : "",
  ]);
  return [
    element("h1", {}, name),
    element(
      "p",
      { class: "lead" },
      `${arms.length} arms, scored on the same ${format.integer(numTokens)} tokens in ${format.integer(windows)} windows of ${format.integer(context)}.`,
    ),
    failed.length > 0 &&
      element(
        "p",
        { class: "bad" },
        `Failed: ${failed.map(({ arm, seed }) => `${arm}, seed ${seed}`).join("; ")}.`,
      ),
    section(
      "Change of perplexity",
      `Bars are 95 % intervals ${isOne ? "over windows; other seeds were not tried" : "over windows and seeds"}; circles are single runs. Method: ${comparison.method}.`,
      plots.changes(
        "Change of perplexity by arm",
        colorOf,
        arms.map(({ name, change, runs }) => ({
          name,
          ...change,
          runs: runs.map(({ percent }) => percent),
        })),
      ),
      table(
        "Arms",
        [{ title: "arm" }, ...numbers("seeds", "before", "after", "change", "95 % interval")],
        results,
      ),
    ),
    pairs.length > 0 &&
      section(
        "Differences",
        "Each arm against another, on the same windows; verdicts are at 5 % after Holm's correction for all pairs.",
        table(
          "Differences",
          [
            { title: "arm" },
            { title: "against" },
            ...numbers("change", "95 % interval", "p (Holm)"),
            { title: "verdict" },
          ],
          verdicts,
        ),
      ),
    drawn.length > 0 &&
      section(
        "Training",
        "Losses of training are of the batches as they came; what counts is the held-out text above.",
        legend(...arms.map(({ name }) => [colorOf(name), name] as const)),
        plots.manyCurves(drawn, colorOf),
      ),
    section(
      "Cost",
      "Means over seeds; the last two are for each percent by which perplexity fell.",
      table(
        "Cost",
        [
          { title: "arm" },
          ...numbers("values", "steps", "time", "memory", "values per %", "time per %"),
        ],
        costs,
      ),
    ),
  ].filter((node) => node instanceof Node);
}
