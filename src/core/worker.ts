// Starts a worker thread from a module beside its caller, in the built program and in a development checkout alike.

import { Worker, type WorkerOptions } from "node:worker_threads";

/**
 * `startWorker("./name", import.meta.url)` runs name.js, or name.ts through tsx where the caller is TypeScript:
 * Node 20 does not hand a loader down to its workers.
 */
export function startWorker(name: string, caller: string, options: WorkerOptions = {}): Worker {
  const extension = caller.slice(caller.lastIndexOf("."));
  const url = new URL(name + extension, caller);
  if (extension !== ".ts") return new Worker(url, options);
  // Resolved from here: code without a file would look for it from the working folder.
  const loader = import.meta.resolve("tsx/esm/api");
  const load = `import("${loader}").then(({ register }) => (register(), import("${url.href}")))`;
  return new Worker(load, { ...options, eval: true });
}
