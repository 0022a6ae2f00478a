// The plan of a run as a table for people.

import type { RunPlan } from "../src/run/plan.ts";
import { formatBytes, formatInteger, formatParameters, table } from "./console.ts";
import type { CommandIo } from "./io.ts";

const MEMORY: Readonly<Record<keyof RunPlan["memoryBytes"], string>> = {
  program: "with the data and the engine",
  weights: "mapped from their file",
  trained: "values, moments and gradients of what trains",
  training: "activations held for the backward pass",
  scoring: "activations",
};

export function planText(plan: RunPlan, { columns }: CommandIo): string {
  const { base, trained, data, training, evaluation, memoryBytes } = plan;
  const windows = (count: number) => `${formatInteger(count)} windows of ${evaluation.context}`;
  const percent = (share: number) => `${Number((100 * share).toPrecision(3))} %`;
  const turns = plan.takesTurns ? "; training and scoring take turns" : "";
  const rows = [
    ["base", `${base.name}, ${formatParameters(base.parameters)} parameters`],
    [
      "trains",
      `${formatInteger(trained.parameters)} parameters, ${formatInteger(trained.added)} new (${(100 * trained.share).toFixed(4)} %)`,
    ],
    ["data", `${formatInteger(data.trainTokens)} tokens, read ${data.epochs.toFixed(2)} times`],
    ...(data.heldOut
      ? [
          [
            "held out",
            `${percent(data.heldOut.actual)} of the data, asked ${percent(data.heldOut.asked)}`,
          ],
        ]
      : []),
    [
      "training",
      `${formatInteger(training.steps)} steps of ${formatInteger(training.tokensPerStep)} tokens`,
    ],
    ["scored", `${windows(evaluation.reportWindows)}, before and after`],
    ["on the way", `${windows(evaluation.evalWindows)}, ${evaluation.evaluations} times`],
    ["device", plan.device],
    ["memory", `about ${formatBytes(plan.totalBytes)}${turns}`],
    ...Object.entries(MEMORY).map(([part, words]) => [
      `  ${part}`,
      `${formatBytes(memoryBytes[part as keyof typeof MEMORY])}, ${words}`,
    ]),
    ...(plan.deviceBytes ? [["on the device", `about ${formatBytes(plan.deviceBytes)}`]] : []),
    ["recomputes", plan.recompute === "blocks" ? "whole blocks" : "what is cheap"],
  ];
  return table([], rows, columns);
}
