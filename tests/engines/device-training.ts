// Trains the fixture models' temperatures on a device (the first argument) and on the CPU side by side and prints, as a
// line of JSON for each, how far the two are apart. A process of its own, so that a test can give it a Vulkan driver.

import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { DEFAULT_TEMPERATURES } from "../../src/insertions/parts.ts";
import { openModel } from "../../src/model/open.ts";
import { withBlocks } from "../../src/model/quantize.ts";
import { openEngine } from "../../src/engines/index.ts";
import { deviation, trainTemperatures } from "./train-temperatures.ts";

export interface Deviations {
  readonly name: string;
  /** Of each temperature's gradient, relative to its largest. */
  readonly gradients: readonly number[];
  /** Of the losses of ten steps, relative to the largest. */
  readonly losses: number;
  /** Of the losses in half precision; null where the adapter has none. */
  readonly halfLosses: number | null;
  /** Of the CPU's loss, from the first step to the last. */
  readonly drop: number;
}

const [cpu, device] = [
  await openEngine("cpu", { threads: 1 }),
  await openEngine(process.argv[2]!, { threads: 1 }),
];
const cacheDir = await mkdtemp(join(tmpdir(), "ssa-test-"));

/** A fixture with trained temperatures, or in blocks: of 4 and 8 bits, with zero points, with biases and a table of them. */
function open(variant: string) {
  const folder = join(import.meta.dirname, "../fixtures", variant);
  if (!variant.startsWith("packed/"))
    return openModel(folder, { adapter: join(folder, "ssa", "full") });
  const opened = openModel(folder, { temperatures: DEFAULT_TEMPERATURES });
  return opened.then((model) => withBlocks(model, null, { cacheDir }));
}

const packed = ["packed/gptq", "packed/gptq-8", "packed/mlx"];
for (const variant of ["gpt2", "llama", "gpt_neox", ...packed]) {
  const model = await open(variant);
  const expected = await trainTemperatures(cpu, model, 10);
  const actual = await trainTemperatures(device, model, 10);
  // An adapter without half precision cannot run its graph, but tells whether every node has a kernel.
  const steps = device.precisions.includes("fp16") ? 10 : 0;
  const able = { ...device, precisions: ["fp32", "fp16"] as const };
  const half = await trainTemperatures(able, model, steps, { precision: "fp16" });
  const found: Deviations = {
    name: variant,
    gradients: [...expected.gradients].map(([name, values]) =>
      deviation(actual.gradients.get(name)!, values),
    ),
    losses: deviation(actual.losses, expected.losses),
    halfLosses: steps > 0 ? deviation(half.losses, expected.losses) : null,
    drop: expected.losses[0]! - expected.losses.at(-1)!,
  };
  process.stdout.write(`${JSON.stringify(found)}\n`);
}
await rm(cacheDir, { recursive: true });
await cpu.dispose();
await device.dispose();
