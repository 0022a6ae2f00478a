// What a run says of its steps while it is at work: lines of metrics.jsonl, and TensorBoard's files where they are asked for.

import { basename, join } from "node:path";
import { openEventFile } from "../files/event-file.ts";
import { appendLine } from "../files/json.ts";
import { runFiles } from "../files/names.ts";
import type { RunAtWork } from "./work.ts";

/** What TensorBoard is told of each kind of record, by its own names. */
const TAGS = {
  step: {
    "train/loss": "lossNats",
    "train/gradient_norm": "gradNorm",
    "train/learning_rate": "learningRate",
    "train/tokens_per_second": "tokensPerSecond",
  },
  evaluation: { "heldout/loss": "lossNats", "heldout/perplexity": "perplexity" },
};

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
  return async (kind: keyof typeof TAGS, record: Readonly<Record<string, number>>) => {
    await appendLine(path, { kind, ...record });
    const scalars = Object.entries(TAGS[kind]).map(([tag, key]) => [tag, record[key]!] as const);
    await tell?.(record["step"]!, Object.fromEntries(scalars));
  };
}
