// The process of fuzz.ts in which cases run one after another; it tells each before it begins, and what came of it.

import { mkdir, rm } from "node:fs/promises";
import { createRandom } from "../../src/core/random.ts";
import { Fault } from "./contract.ts";
import type { FoundFault, Job, Told } from "./fuzz.ts";
import { kinds } from "./kinds/index.ts";

// Beyond what the runtime itself takes, and far above what any of these small inputs needs.
const maxGrowthBytes = 600 * 2 ** 20;

const { kind, seed, first, end, folder, isGuarded } = JSON.parse(process.argv[2]!) as Job;
const tell = (told: Told) => process.send!(told);
await rm(folder, { recursive: true, force: true });
await mkdir(folder, { recursive: true });
const { mutate, check, dispose } = await kinds[kind]({ folder, isGuarded });
let peak = process.memoryUsage.rss();

for (let index = first; index < end; index++) {
  tell({ begins: index });
  try {
    const outcome = await check(await mutate(createRandom(seed, index)));
    const rss = process.memoryUsage.rss();
    const grown = rss - peak;
    peak = Math.max(peak, rss);
    if (grown > maxGrowthBytes) throw new Fault("memory", `${grown} bytes more`);
    tell({ outcome });
  } catch (error) {
    const { stack, message } = error as Error;
    const fault: FoundFault =
      error instanceof Fault
        ? { index, what: error.kind, message }
        : { index, what: "stack", message: `in the fuzzer: ${stack ?? message}` };
    tell({ fault });
  }
}
await dispose?.();
// A subject's library may keep the process alive.
process.send!({ begins: end } satisfies Told, () => process.exit(0));
