// Nothing is written on trust: what an export wrote is opened as its users open it and compared with its source.
// B = batch, T = sequence, V = vocabulary

import { UserError } from "../core/errors.ts";
import { createRandom } from "../core/random.ts";
import { openEngine } from "../engines/index.ts";
import { simplify } from "../graph/passes.ts";
import { boundWeights, buildForward, logitsOf } from "../model/graph.ts";
import { type OpenedModel, openModel, readTemperatures } from "../model/open.ts";
import { type Client, openClient, type Past } from "./client.ts";
import { type Deviation, DeviationMeter, sameWeight } from "./weights.ts";

export const TARGETS = ["safetensors", "adapter", "onnx"] as const;
/** What an export is for. */
export type Target = (typeof TARGETS)[number];

export interface Verification extends Deviation {
  readonly what: "logits" | "weights" | "temperatures";
}

/** Feeds the differences of what was written to the meter; a mismatch is thrown. */
type Compare = (
  folder: string,
  source: OpenedModel,
  meter: DeviationMeter,
  isRounded: boolean,
) => Promise<void>;

const comparisons: Record<Target, readonly [Verification["what"], Compare]> = {
  safetensors: [
    "weights",
    async (folder, source, meter) => compareTensors(source, await openModel(folder), meter),
  ],
  adapter: [
    "temperatures",
    async (folder, source, meter) => {
      const temperatures = await readTemperatures(folder, source.model);
      await compareTensors({ ...source, weights: new Map() }, { temperatures }, meter);
    },
  ],
  onnx: ["logits", compareLogits],
};

/** Compares a written folder with its source; `isRounded` allows for logits of half precision. Throws a UserError (exit 1) on a mismatch. */
export async function verify(
  target: Target,
  folder: string,
  source: OpenedModel,
  isRounded = false,
): Promise<Verification> {
  const [what, compare] = comparisons[target];
  const meter = new DeviationMeter();
  await compare(folder, source, meter, isRounded);
  return { what, ...meter.result() };
}

/** Every tensor of the source: weights by their bytes after the conversion, temperatures by value. */
async function compareTensors(
  { weights, temperatures }: OpenedModel,
  written: Partial<OpenedModel>,
  meter: DeviationMeter,
): Promise<void> {
  for (const [name, info] of weights) {
    const copy = written.weights?.get(name);
    if (!copy || !(await sameWeight(info, copy, meter)))
      throw mismatch(`tensor "${name}" is another`);
  }
  if (JSON.stringify(written.temperatures?.spec) !== JSON.stringify(temperatures?.spec))
    throw mismatch("the temperatures are of another form");
  for (const [name, values] of temperatures?.values ?? []) {
    const copy = written.temperatures?.values.get(name);
    if (copy?.length !== values.length || !values.every((value, i) => value === copy[i]))
      throw mismatch(`temperature "${name}" is another`);
    meter.addEqual(values.length);
  }
}

/** Prompts: tokens of the first, and of the second, which is padded on its left to the same length. */
const LENGTHS = [24, 15] as const;

/**
 * Runs a written ONNX folder in its client: without and with its cache, alone and in a batch of two with left padding;
 * all logits are compared with those of the source's fixed window.
 */
async function compareLogits(
  folder: string,
  source: OpenedModel,
  meter: DeviationMeter,
  isRounded: boolean,
): Promise<void> {
  const { maxPositions, vocabSize } = source.model.config;
  const length = Math.min(LENGTHS[0], maxPositions);
  const padding = length - Math.max(1, Math.min(LENGTHS[1], length - 1));
  const random = createRandom(0);
  const tokens = (count: number) =>
    Array.from({ length: count }, () => Math.floor(random.uniform() * vocabSize));
  const [prompt, other] = [tokens(length), tokens(length - padding)];
  const [zeros, ones] = [repeated(0, padding), repeated(1, length)];

  const expected = await windowLogits(source, [prompt, [...other, ...zeros]]);
  const compare = (row: number, from: number, actual: Float32Array) => {
    const start = (row * length + from) * vocabSize;
    meter.add(expected.subarray(start, start + actual.length), actual);
  };
  const client = await openClient(folder);
  try {
    compare(0, 0, (await client.forward([prompt], [ones])).logits);
    const batch = {
      ids: [prompt, [...zeros, ...other]],
      mask: [ones, [...zeros, ...ones.slice(padding)]],
    };
    for await (const { start, logits } of inSteps(client, batch)) {
      const half = logits.length / 2;
      compare(0, start, logits.subarray(0, half));
      const skipped = half + Math.max(0, padding - start) * vocabSize;
      if (skipped < logits.length)
        compare(1, Math.max(0, start - padding), logits.subarray(skipped));
    }
  } finally {
    await client.dispose();
  }
  const { largest } = meter.result();
  const limit = isRounded ? 0.05 * meter.scale : 1e-4 * Math.max(1, meter.scale / 10);
  if (!(largest <= limit))
    throw mismatch(`logits differ by ${largest}, at most ${limit} is expected`);
}

/** Runs a batch with its cache: half of it, three tokens at once, then one by one; logits from column `start` on. */
async function* inSteps(
  client: Client,
  { ids, mask }: { readonly ids: readonly number[][]; readonly mask: readonly number[][] },
): AsyncGenerator<{ readonly start: number; readonly logits: Float32Array }> {
  const length = ids[0]!.length;
  const half = Math.ceil(length / 2);
  let past: Past | undefined;
  let start = 0;
  for (const end of [half, half + 3, ...Array.from({ length }, (_, i) => half + 4 + i)]) {
    if (start === length) return;
    const stop = Math.min(end, length);
    const columns = ids.map((row) => row.slice(start, stop));
    const seen = mask.map((row) => row.slice(0, stop));
    const step = await client.forward(columns, seen, past);
    yield { start, logits: step.logits };
    [past, start] = [step.past, stop];
  }
}

const repeated = (value: number, count: number) => Array.from({ length: count }, () => value);

/** Logits [B, T, V] of the source, evaluated as `ssa eval` does. */
async function windowLogits(
  source: OpenedModel,
  rows: readonly (readonly number[])[],
): Promise<Float32Array> {
  const window = { batchSize: rows.length, context: rows[0]!.length };
  const outputs = simplify({ logits: logitsOf(buildForward(source, window)) });
  const engine = await openEngine("cpu", { threads: 0 });
  try {
    const program = await engine.compile(outputs, boundWeights(source));
    const { logits } = await program.run({ ids: BigInt64Array.from(rows.flat(), BigInt) });
    return logits!.slice();
  } finally {
    await engine.dispose();
  }
}

function mismatch(problem: string): UserError {
  return new UserError(`what was written is not the source: ${problem}`, {
    hint: "nothing was kept; this is a mistake of ssa or of the disk: please report it",
    exitCode: 1,
  });
}
