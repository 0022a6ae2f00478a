// The worker side of fuzz.ts: runs cases one after another and tells how far it is, even where one never ends.

import { mkdir, rm } from "node:fs/promises";
import { parentPort, workerData } from "node:worker_threads";
import { createRandom } from "../../src/core/random.ts";
import { Fault, OUTCOMES } from "./contract.ts";
import type { FoundFault, Job } from "./fuzz.ts";
import { kinds } from "./kinds/index.ts";

// Beyond what the runtime itself takes, and far above what any of these small inputs needs.
const maxGrowthBytes = 600 * 2 ** 20;

const { kind, seed, first, end, folder, isGuarded, progress } = workerData as Job;
const counters = new Int32Array(progress);
await rm(folder, { recursive: true, force: true });
await mkdir(folder, { recursive: true });
const { mutate, check, dispose } = await kinds[kind]({ folder, isGuarded });
let peak = process.memoryUsage.rss();

for (let index = first; index < end; index++) {
  Atomics.store(counters, 0, index);
  try {
    const outcome = await check(await mutate(createRandom(seed, index)));
    const { rss } = process.memoryUsage();
    const grown = rss - peak;
    peak = Math.max(peak, rss);
    if (grown > maxGrowthBytes) throw new Fault("memory", `${grown} bytes more`);
    Atomics.add(counters, 1 + OUTCOMES.indexOf(outcome), 1);
  } catch (error) {
    const { stack, message } = error as Error;
    const fault: FoundFault =
      error instanceof Fault
        ? { index, what: error.kind, message }
        : { index, what: "stack", message: `in the fuzzer: ${stack ?? message}` };
    parentPort!.postMessage(fault);
  }
}
await dispose?.();
Atomics.store(counters, 0, end);
// A subject's library may keep the thread alive.
process.exit(0);
