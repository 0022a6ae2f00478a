// The demo recipe's first steps on TensorFlow.js: the losses that ONNX Runtime gives.

import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { test } from "node:test";
import { promisify } from "node:util";
import { fileURLToPath } from "node:url";
import { program } from "../cli/program.ts";
import { allClose, skipWithout, temporaryFolder } from "../helpers.ts";

const root = fileURLToPath(new URL("../../", import.meta.url));
const numSteps = 8;

/** Losses of the first steps, nats per token; little is evaluated around them. */
async function losses(device: string, run: string): Promise<number[]> {
  // prettier-ignore
  const args = [
    "finetune", "--recipe", "demo", "--device", device, "--out", run,
    "--steps", `${numSteps}`, "--warmup-steps", `${numSteps}`, // the recipe's own warm-up
    "--eval-every", `${numSteps}`, "--eval-windows", "1", "--report-windows", "2",
  ];
  await promisify(execFile)(process.execPath, [...program, ...args], { cwd: root });
  const lines = (await readFile(join(run, "metrics.jsonl"), "utf8")).trim().split("\n");
  const metrics = lines.map((line) => JSON.parse(line) as { kind: string; lossNats: number });
  return metrics.filter(({ kind }) => kind === "step").map(({ lossNats }) => lossNats);
}

const skip = skipWithout(join(root, "checkpoints/tiny-gpt2/model.safetensors"));

test("the first steps of the demo have the same losses on TensorFlow.js", { skip }, async (t) => {
  const folder = await temporaryFolder(t);
  const expected = await losses("cpu", join(folder, "cpu"));
  const actual = await losses("tfjs:wasm", join(folder, "wasm"));
  assert.equal(expected.length, numSteps);
  allClose(actual, expected, { rtol: 1e-4 });
});
