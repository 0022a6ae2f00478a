// Runs one task in a process of its own: a line on stdin runs it once, a line on stdout says how long it took.

import { readFileSync } from "node:fs";
import { createInterface } from "node:readline";
import { prepare, type Task } from "./tasks.ts";

const programMb = process.memoryUsage.rss() / 1e6;
const run = await prepare(JSON.parse(process.argv[2]!) as Task);
console.log(JSON.stringify({ programMb }));
for await (const _ of createInterface({ input: process.stdin })) {
  const started = performance.now();
  await run();
  console.log(JSON.stringify({ ms: performance.now() - started, peakRssMb: peakRssMb() }));
}

/** Of this process alone where Linux says so; resourceUsage counts what the parent was before exec, too. */
function peakRssMb(): number {
  try {
    const status = readFileSync("/proc/self/status", "utf8");
    return Number(/VmHWM:\s*(\d+) kB/.exec(status)![1]) / 1024;
  } catch {
    return process.resourceUsage().maxRSS / 1024;
  }
}
