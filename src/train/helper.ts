// Threads that share the host's work with the main one.

import { once } from "node:events";
import { startWorker } from "../core/worker.ts";
import type { Helper, Share } from "./host.ts";

export function startHelper(share: Share): Helper {
  const worker = startWorker("./helper-worker", import.meta.url, { workerData: share });
  worker.unref();
  return {
    perform: async (work) => {
      worker.ref();
      worker.postMessage(work);
      await once(worker, "message");
      worker.unref();
    },
    close: () => void worker.terminate(),
  };
}
