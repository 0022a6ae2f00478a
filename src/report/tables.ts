// A comparison as tables, for terminals and for its page.

import * as format from "../core/format.ts";
import type { ArmsCompared } from "../evaluate/comparison.ts";
import type { Difference } from "../evaluate/statistics.ts";

export type Table = readonly [header: readonly string[], rows: readonly (readonly string[])[]];

const changeOf = ({ percent, interval95 }: Omit<Difference, "pValue">) => [
  format.change(percent),
  interval95?.map(format.change).join(" to ") ?? "",
];

/** Results, differences and costs; those without rows are left out. */
export function comparisonTables({ arms, pairs }: Pick<ArmsCompared, "arms" | "pairs">) {
  const tables: Readonly<Record<string, Table>> = {
    Results: [
      ["arm", "seeds", "before", "after", "change", "95 % interval"],
      arms.map(({ name, seeds, before, after, change }) => [
        name,
        String(seeds.length),
        ...[before, after].map(({ perplexity }) => format.perplexity(perplexity)),
        ...changeOf(change),
      ]),
    ],
    Cost: [
      ["arm", "values", "steps", "time", "memory", "values/%", "time/%"],
      arms.map(({ name, trained, steps, seconds, peakRssBytes, cost }) => [
        name,
        trained === null ? "" : format.integer(trained),
        format.integer(steps),
        format.duration(seconds),
        format.bytes(peakRssBytes),
        cost?.trained ? format.integer(cost.trained) : "",
        cost ? format.duration(cost.seconds) : "",
      ]),
    ],
    "Learning rates": [
      ["arm", "rate", "steps", "loss by learning rate"],
      arms.flatMap(({ name, search }) => {
        if (!search) return [];
        const points = search.points.toSorted((a, b) => a.rate - b.rate);
        const each = points.map(
          ({ rate, lossNats }) => `${rate}: ${lossNats?.toFixed(4) ?? "not finite"}`,
        );
        return [[name, String(search.chosen.rate), String(search.steps), each.join(", ")]];
      }),
    ],
    Differences: [
      ["arm", "against", "change", "95 % interval", "p (Holm)", "verdict"],
      pairs.map(({ arm, against, pHolm, verdict, ...difference }) => [
        arm,
        against,
        ...changeOf(difference),
        pHolm < 0.001 ? "<0.001" : pHolm.toFixed(3),
        verdict,
      ]),
    ],
    "Equal perplexity": [
      ["arm", "as good as", "at step", "of", "ratio"],
      pairs.flatMap(({ equal }) => {
        const { step = 0, of = 0, ratio = 0 } = equal ?? {};
        const steps = [step, of].map(format.integer);
        return equal ? [[equal.arm, equal.against, ...steps, ratio.toFixed(2)]] : [];
      }),
    ],
  };
  return Object.entries(tables).filter(([, [, rows]]) => rows.length > 0);
}
