// The worker side of tokenize.ts: loads the tokenizer once, then answers jobs in order until the port is closed.

import { parentPort, workerData } from "node:worker_threads";
import { messageOf } from "../../core/errors.ts";
import type { Job } from "./tokenize.ts";
import { type EncodedPieces, loadTokenizer } from "./tokenizer.ts";

const { folder } = workerData as { readonly folder: string };
const loading = loadTokenizer(folder);

parentPort!.on("message", (job: Job | "close") => {
  if (job === "close") return parentPort!.close();
  const encode = loading.then((tokenizer) => tokenizer.encode(job));
  const answer = (encoded: EncodedPieces) =>
    parentPort!.postMessage(encoded, [encoded.ids.buffer as ArrayBuffer]);
  void encode.then(answer).catch((error: unknown) => parentPort!.postMessage(messageOf(error)));
});
