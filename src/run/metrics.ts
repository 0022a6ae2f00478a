// What a run says of its steps while it is at work: lines of metrics.jsonl, and TensorBoard's files where they are asked for.

import { basename, join } from "node:path";
import { openEventFile } from "../files/event-file.ts";
import { appendLine } from "../files/json.ts";
import { runFiles } from "../files/names.ts";
import type { StepMetrics } from "../train/loop.ts";
import type { RunAtWork } from "./work.ts";

type Step = Omit<StepMetrics, "seconds"> & { readonly tokensPerSecond: number };
type Evaluation = Readonly<Record<"step" | "lossNats" | "perplexity", number>>;

/** For what comes after a step, -1 being the start. */
export async function openMetrics({ recipe, runDir }: RunAtWork, after: number) {
  const path = join(runDir, runFiles.metrics);
  const { tensorboard } = recipe;
  // Of several runs in one folder each has its own, which is its name in TensorBoard.
  const folder =
    tensorboard === true
      ? join(runDir, runFiles.tensorboard)
      : tensorboard && join(tensorboard, basename(runDir));
  const tell = folder === false ? undefined : await openEventFile(folder, after);
  return {
    step: async (record: Step) => {
      await appendLine(path, { kind: "step", ...record });
      await tell?.(record.step, {
        "train/loss": record.lossNats,
        "train/gradient_norm": record.gradNorm,
        "train/learning_rate": record.learningRate,
        "train/tokens_per_second": record.tokensPerSecond,
      });
    },
    evaluation: async (record: Evaluation) => {
      await appendLine(path, { kind: "evaluation", ...record });
      const { lossNats, perplexity } = record;
      await tell?.(record.step, { "heldout/loss": lossNats, "heldout/perplexity": perplexity });
    },
  };
}
