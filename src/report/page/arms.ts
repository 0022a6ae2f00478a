// The page of a comparison: arms with their intervals, and what they cost.

import { integer } from "../../core/format.ts";
import type { ArmsPage } from "../data.ts";
import { comparisonTables } from "../tables.ts";
import { element, section, table } from "./dom.ts";
import * as plots from "./plots.ts";

const HOW = {
  Results: "Perplexities are means over seeds; the change is of each arm against its own base.",
  Cost: "Means over seeds; the last two are for each percent by which perplexity fell.",
  Differences: "Each arm against another on the same windows; verdicts are at 5 % after Holm.",
};

export function armsPage({ comparison, curves }: ArmsPage): readonly (Node | undefined)[] {
  const { arms, failed, scored, method } = comparison;
  const rows = arms.map(({ name, change: { percent, interval95 } }) => {
    return { name, value: percent, interval: interval95 };
  });
  const lost = failed.map(({ arm, seed, reason }) => `${arm}, seed ${seed}, failed: ${reason}`);
  const what = `${integer(scored.numTokens ?? 0)} tokens in ${scored.windows} windows of ${scored.context}`;
  return [
    element("p", { class: "lead" }, `${arms.length} arms, scored on the same ${what}.`),
    ...lost.map((line) => element("p", { class: "bad" }, line)),
    section(
      "Change of perplexity",
      `Lines are 95 % intervals, ${arms.some(({ seeds }) => seeds.length === 1) ? "over windows; other seeds were not tried" : "over windows and seeds"}. Method: ${method}.`,
      plots.intervals("Change of perplexity by arm, %", rows, [plots.zero]),
    ),
    curves.some(({ points }) => points.length > 1)
      ? section(
          "Training",
          "Pale: each seed; strong: their mean. Arms with the same seed learn the same batches.",
          plots.armCurves("Loss of the batches by step, nats per token", curves),
        )
      : undefined,
    ...comparisonTables(comparison).map(([title, [header, rows]]) =>
      section(title, HOW[title as keyof typeof HOW], table(title, header, rows)),
    ),
  ];
}
