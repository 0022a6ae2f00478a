// The worker side of tokenize.ts: loads the tokenizer once, then answers jobs.

import { workerData } from "node:worker_threads";
import { answerQueue } from "../../core/worker.ts";
import type { Job } from "./tokenize.ts";
import { loadTokenizer } from "./tokenizer.ts";

const loading = loadTokenizer(workerData as string);

answerQueue(async (job: Job) => (await loading).encode(job));
