// Threads that share the host's work with the main one.

import { openQueue } from "../core/worker.ts";
import type { Helper, HostWork, Share } from "./host.ts";

export function startHelper(share: Share): Helper {
  const failed = (said: string) => new Error(`internal: ${said}`);
  const queue = openQueue<(work: HostWork) => Promise<void>>(
    "./helper-worker",
    import.meta.url,
    failed,
    share,
  );
  return { perform: queue.ask, close: () => void queue.close() };
}
