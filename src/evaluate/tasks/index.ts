// Everything that `ssa eval --task` measures: a row each.

import type { Task } from "../evaluation.ts";
import { lambada } from "./lambada.ts";
import { perplexity } from "./perplexity.ts";

export const tasks = { perplexity, lambada } satisfies Readonly<Record<string, Task>>;
