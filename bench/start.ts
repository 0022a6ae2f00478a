// From the command to its first window, as a user meets it: `ssa finetune`, built, on token ids.

import { spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync } from "node:fs";
import { rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { packageRoot } from "../src/files/package-root.ts";
import { randomIds } from "./models.ts";
import { medianOf } from "./processes.ts";

const NUM_IDS = 80_000;

type Line = Readonly<{ msg?: string; kind?: string }>;

/** Medians over fresh processes: until the run says what it does, until its first window is scored, and of a later window. */
export async function measureStart(folder: string, rounds: number, threads: number) {
  const [program, data, out] = [
    join(packageRoot(), "dist/cli/main.js"),
    join(folder, "ids.bin"),
    join(folder, "run"),
  ];
  if (!existsSync(program)) throw new Error("the program is not built: npm run build");
  await writeFile(data, Uint16Array.from(randomIds(NUM_IDS, 50257)));
  const run = `finetune --base ${folder} --data ${data} --out ${out} --steps 1 --threads ${threads}`;
  const times: (readonly [began: number, first: number, later: number])[] = [];
  for (let round = 0; round <= rounds; round++) {
    const started = performance.now();
    const child = spawn(process.execPath, [program, ...run.split(" "), "--log-format", "json"], {
      stdio: ["ignore", "ignore", "pipe"],
    });
    const closed = once(child, "close");
    const scored: number[] = [];
    let began = 0;
    for await (const line of createInterface({ input: child.stderr })) {
      const { msg, kind } = JSON.parse(line) as Line;
      if (msg?.startsWith("run ")) began = performance.now() - started;
      if (kind === "scored") scored.push(performance.now() - started);
      if (scored.length === 3) child.kill("SIGINT");
    }
    await closed;
    await rm(out, { recursive: true, force: true });
    const [first, second, third] = scored as [number, number, number];
    // The first one reads the files into the system's cache.
    if (round > 0) times.push([began, first, Math.min(second - first, third - second)]);
  }
  const median = (i: 0 | 1 | 2) => medianOf(times.map((each) => each[i]));
  return {
    case: "start",
    untilRunMs: median(0),
    untilFirstWindowMs: median(1),
    laterWindowMs: median(2),
  };
}
