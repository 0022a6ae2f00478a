// Everything that `ssa eval --tasks` measures: a row each.

import type { TASK_NAMES } from "../../options/schema.ts";
import type { Task } from "../evaluation.ts";
import { choiceRows } from "./choice-rows.ts";
import { type ChoiceResult, choiceTask } from "./choices.ts";
import { lambada } from "./lambada.ts";
import { passkey } from "./passkey.ts";
import { perplexity } from "./perplexity.ts";

const choices = Object.fromEntries(
  Object.entries(choiceRows).map(([name, row]) => [name, choiceTask(name, row)]),
) as Record<keyof typeof choiceRows, Task<ChoiceResult>>;

export const tasks = {
  perplexity,
  lambada,
  lambada_openai: lambada,
  ...choices,
  passkey,
} satisfies Readonly<Record<"perplexity" | (typeof TASK_NAMES)[number], Task>>;
