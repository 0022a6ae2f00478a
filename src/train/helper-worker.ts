// The thread of helper.ts.

import { parentPort, workerData } from "node:worker_threads";
import { type HostWork, perform, type Share } from "./host.ts";

parentPort!.on("message", (work: HostWork) => {
  perform(work, workerData as Share);
  parentPort!.postMessage(null);
});
