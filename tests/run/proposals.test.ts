// What a refusal for want of memory proposes is taken at its word: each way runs under a limit just above its own figure.

import assert from "node:assert/strict";
import { join } from "node:path";
import { test } from "node:test";
import { fileURLToPath } from "node:url";
import { ssa } from "../cli/program.ts";
import { temporaryFolder } from "../helpers.ts";
import { writeTokens } from "./small-run.ts";

const tiny = fileURLToPath(new URL("../../checkpoints/tiny-gpt2", import.meta.url));

/** The program with its data differs by some MB from start to start. */
const SLACK_MB = 25;

test("every proposal of a refusal is admitted under its own figure, and together they peak where they were told to", async (t) => {
  const folder = await temporaryFolder(t);
  const data = await writeTokens(join(folder, "data"));
  const env = { SSA_CACHE: join(folder, "cache"), XDG_CACHE_HOME: folder };
  const shape = ["--context", "256", "--batch-size", "32", "--gradient-accumulation-steps", "1"];
  const args = ["finetune", "--base", tiny, "--data", data, "--device", "cpu", "--steps", "1"];
  const run = (...more: string[]) => ssa([...args, ...shape, ...more, "--json"], { env });
  const refusal = await run("--max-memory", "0.2", "--dry-run");
  assert.equal(refusal.code, 2, refusal.stderr);
  const ways = [...refusal.stderr.matchAll(/(--[\w\- ]+?) takes (\d+) MB/g)];
  assert.ok(ways.length >= 3, refusal.stderr);
  for (const [, flags = "", figure] of ways) {
    const limit = String((Number(figure) + SLACK_MB) / 1000);
    const { code, stderr, stdout } = await run(
      ...flags.split(" "),
      "--max-memory",
      limit,
      "--dry-run",
    );
    assert.equal(code, 0, `${flags} under ${limit} GB: ${stderr}`);
    const { totalBytes } = JSON.parse(stdout) as { totalBytes: number };
    const off = Math.abs(totalBytes / 1e6 - Number(figure));
    assert.ok(off < SLACK_MB, `${flags} takes ${totalBytes}, was told ${figure} MB`);
  }
  const [, flags = "", figure] = ways.at(-1)!;
  const limit = String((Number(figure) + SLACK_MB) / 1000);
  const ended = await run(...flags.split(" "), "--max-memory", limit, "--out", join(folder, "run"));
  assert.equal(ended.code, 0, ended.stderr);
  const { peakRssBytes } = JSON.parse(ended.stdout) as { peakRssBytes: number };
  // The estimate of a step is one to 12 % (src/engines/onnxruntime/estimate.ts).
  const most = 1.12e6 * (Number(figure) + SLACK_MB);
  assert.ok(peakRssBytes < most, `${flags}: ${peakRssBytes}, told ${figure} MB`);
});
