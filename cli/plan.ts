// The plan of a run as a table for people.

import type { RunPlan } from "../src/run/plan.ts";
import { formatDuration, formatInteger, formatParameters, table } from "./console.ts";
import type { CommandIo } from "./io.ts";

export function planText(plan: RunPlan, { columns }: CommandIo): string {
  const { base, trained, data, training, evaluation, seconds } = plan;
  const windows = (count: number) => `${formatInteger(count)} windows of ${evaluation.context}`;
  const rows = [
    ["base", `${base.folder}, ${formatParameters(base.parameters)} parameters`],
    [
      "trains",
      `${formatInteger(trained.parameters)} parameters, ${formatInteger(trained.added)} new (${(100 * trained.share).toFixed(4)} %)`,
    ],
    ["data", `${formatInteger(data.trainTokens)} tokens, read ${data.epochs.toFixed(2)} times`],
    [
      "training",
      `${formatInteger(training.steps)} steps of ${formatInteger(training.tokensPerStep)} tokens`,
    ],
    ["scored", `${windows(evaluation.reportWindows)}, before and after`],
    ["on the way", `${windows(evaluation.evalWindows)}, ${evaluation.evaluations} times`],
    ["device", plan.device],
    [
      "time",
      `about ${formatDuration(seconds.training)} training, ${formatDuration(seconds.evaluation)} scoring`,
    ],
  ];
  return table([], rows, columns);
}
