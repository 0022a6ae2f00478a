// The result of a run as a table for people.

import type { RunReport } from "../src/evaluate/results.ts";
import {
  facts,
  formatBytes,
  formatDuration,
  formatInteger,
  formatPercent,
  formatPerplexity,
  formatRate,
  table,
} from "./console.ts";
import type { CommandIo } from "./io.ts";

export function reportText(report: RunReport, runDir: string, io: CommandIo): string {
  const { before, after, delta, parameters, temperatures } = report;
  const changes = [delta.percent, ...(delta.interval95 ?? [])];
  const [change, low, high] = changes.map((p) => formatPercent(p, { isChange: true }));
  const interval = low ? ` (95 % interval ${low} to ${high})` : "";
  const subset =
    after.windows === after.windowsTotal ? "" : `, an even subset of ${after.windowsTotal}`;
  const share = `${(100 * parameters.share).toFixed(4)} % of ${formatInteger(parameters.base)}`;
  const comparison = Object.entries({ before, after }).map(
    ([when, { perplexity, lossNats, bitsPerByte }]) => [
      when,
      formatPerplexity(perplexity),
      lossNats.toFixed(4),
      bitsPerByte?.toFixed(4) ?? "",
    ],
  );
  const taus = temperatures.map(({ layer, projection, min, mean, max }) => [
    String(layer),
    projection,
    ...[min, mean, max].map((tau) => tau.toFixed(3)),
  ]);
  const run = {
    scored: `${formatInteger(after.numTokens)} tokens in ${after.windows} windows of ${after.context}${subset}`,
    "new parameters": `${formatInteger(parameters.added)} (${share})`,
    steps: `${report.steps}, ${formatRate(report.tokensPerSecond)} on ${report.device}`,
    "time, memory": `${formatDuration(report.elapsedSeconds)}, peak ${formatBytes(report.peakRssBytes)}`,
    model: `${runDir}/final`,
  };
  return [
    table(["", "perplexity", "nats/token", "bits/byte"], comparison, io.columns),
    io.style.bold(`perplexity ${change}${interval}`),
    facts(run, io.columns),
    ...(taus.length === 0
      ? []
      : [table(["layer", "projection", "min τ", "mean τ", "max τ"], taus, io.columns)]),
  ].join("\n\n");
}
