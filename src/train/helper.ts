// Threads that share the host's work with the main one.

import { openQueue } from "../core/worker.ts";
import type { HostWork, Share } from "./host.ts";

export const startHelper = (share: Share) =>
  openQueue<(work: HostWork) => Promise<void>>("./helper-worker", import.meta.url, share);
