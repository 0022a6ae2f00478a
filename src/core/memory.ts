// The memory that this process may still take: what the machine has, or what the limit of a container leaves.

import { readFileSync } from "node:fs";
import { freemem } from "node:os";
import { dirname, join } from "node:path/posix";
import { orElse } from "./errors.ts";

/** Of both versions of Linux's control groups: where /proc/self/cgroup names ours, its folder, its files, its counters. */
const versions = [
  [/^0::(.*)$/m, "sys/fs/cgroup", "memory.max", "memory.current", /^(?:in)?active_file (\d+)$/gm],
  [
    /^\d+:memory:(.*)$/m,
    "sys/fs/cgroup/memory",
    "memory.limit_in_bytes",
    "memory.usage_in_bytes",
    /^total_(?:in)?active_file (\d+)$/gm,
  ],
] as const;

/** Bytes. What the kernel can drop, such as pages of files, counts as free; swap does not. */
export function freeMemory(root = "/", ofMachine = freemem()): number {
  const read = (...path: readonly string[]) =>
    orElse(() => readFileSync(join(root, ...path), "utf8"), "");
  const groups = read("proc/self/cgroup");
  let free = ofMachine;
  for (const [ours, folder, limit, usage, cached] of versions) {
    // The groups above it limit it too; a container sees itself as the topmost, whatever it is called outside.
    for (let group = ours.exec(groups)?.[1] ?? "/"; ; group = dirname(group)) {
      const most = Number(read(folder, group, limit) || "max"); // without a limit: max, or more than any machine has
      const pages = read(folder, group, "memory.stat").matchAll(cached);
      const kept = Array.from(pages, ([, bytes]) => Number(bytes)).reduce((a, b) => a + b, 0);
      if (most >= 0) free = Math.min(free, most - Number(read(folder, group, usage)) + kept);
      if (dirname(group) === group) break;
    }
  }
  return Math.max(0, free);
}
