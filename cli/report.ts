// The result of a run as a table for people.

import type { RunReport } from "../src/evaluate/results.ts";
import {
  formatBytes,
  formatDuration,
  formatInteger,
  formatPercent,
  formatPerplexity,
  formatRate,
  table,
} from "./console.ts";
import type { CommandIo } from "./io.ts";

export function reportText(
  report: RunReport,
  runDir: string,
  { columns, style }: CommandIo,
): string {
  const { before, after, delta, parameters, temperatures } = report;
  const interval = delta.interval95
    ? ` (95 % interval ${delta.interval95.map((p) => formatPercent(p, { isChange: true })).join(" to ")})`
    : "";
  const bits = (value: number | null) => (value === null ? "" : value.toFixed(4));
  const comparison = table(
    ["", "perplexity", "nats/token", "bits/byte"],
    [
      [
        "before",
        formatPerplexity(before.perplexity),
        before.lossNats.toFixed(4),
        bits(before.bitsPerByte),
      ],
      [
        "after",
        formatPerplexity(after.perplexity),
        after.lossNats.toFixed(4),
        bits(after.bitsPerByte),
      ],
    ],
    columns,
  );
  const change = `perplexity ${formatPercent(delta.percent, { isChange: true })}${interval}`;
  const subset =
    after.windows === after.windowsTotal ? "" : `, an even subset of ${after.windowsTotal}`;
  const share = (100 * parameters.share).toFixed(4);
  const facts = table(
    [],
    [
      [
        "scored",
        `${formatInteger(after.numTokens)} tokens in ${after.windows} windows of ${after.context}${subset}`,
      ],
      [
        "new parameters",
        `${formatInteger(parameters.added)} (${share} % of ${formatInteger(parameters.base)})`,
      ],
      ["steps", `${report.steps}, ${formatRate(report.tokensPerSecond)} on ${report.device}`],
      [
        "time, memory",
        `${formatDuration(report.elapsedSeconds)}, peak ${formatBytes(report.peakRssBytes)}`,
      ],
      ["model", `${runDir}/final`],
    ],
    columns,
  );
  const taus = table(
    ["layer", "projection", "min τ", "mean τ", "max τ"],
    temperatures.map(({ layer, projection, min, mean, max }) => [
      String(layer),
      projection,
      ...[min, mean, max].map((tau) => tau.toFixed(3)),
    ]),
    columns,
  );
  const parts = [comparison, style.bold(change), facts];
  return (temperatures.length > 0 ? [...parts, taus] : parts).join("\n\n");
}
