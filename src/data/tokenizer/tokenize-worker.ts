// The worker side of tokenize.ts: loads the tokenizer once, then answers jobs in order until the port is closed.

import { parentPort, workerData } from "node:worker_threads";
import { messageOf } from "../../core/errors.ts";
import type { Job } from "./tokenize.ts";
import { loadTokenizer } from "./tokenizer.ts";

const { folder } = workerData as { readonly folder: string };
const loading = loadTokenizer(folder);

parentPort!.on("message", (job: Job | "close") => {
  if (job === "close") parentPort!.close();
  else void answer(job);
});

async function answer(job: Job): Promise<void> {
  try {
    const encoded = (await loading).encode(job);
    parentPort!.postMessage(encoded, [encoded.ids.buffer as ArrayBuffer]);
  } catch (error) {
    parentPort!.postMessage(messageOf(error));
  }
}
