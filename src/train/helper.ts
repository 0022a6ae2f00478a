// Threads that share the host's work with the main one.

import { openQueue } from "../core/worker.ts";
import type { Helper, HostWork, Share } from "./host.ts";

export function startHelper(share: Share): Helper {
  type Perform = (work: HostWork) => Promise<void>;
  const queue = openQueue<Perform>("./helper-worker", import.meta.url, share);
  return { perform: queue.ask, close: () => void queue.close() };
}
