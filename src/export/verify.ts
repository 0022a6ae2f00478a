// Nothing is written on trust: what an export wrote is opened as its users open it and compared with its source.
// B = batch, T = sequence, V = vocabulary

import { join } from "node:path";
import { UserError } from "../core/errors.ts";
import { createRandom } from "../core/random.ts";
import { boundWeights, buildForward, logitsOf } from "../model/graph.ts";
import {
  ADAPTER_CONFIG,
  ADAPTER_WEIGHTS,
  type OpenedModel,
  openModel,
  readJson,
} from "../model/open.ts";
import type { Engine } from "../engines/index.ts";
import { openSafetensors, readFloats } from "../files/safetensors.ts";
import { simplify } from "../graph/passes.ts";
import type { Inserted } from "../insertions/insertion.ts";
import { temperatures } from "../insertions/temperatures.ts";
import { type Client, openClient, type Past } from "./client.ts";
import { type Deviation, DeviationMeter, sameWeight } from "./weights.ts";

export interface Verification extends Deviation {
  readonly what: "logits" | "weights" | "temperatures";
}

/** Prompts: tokens of the first, and of the second, which is padded on its left to the same length. */
const LENGTHS = [24, 15] as const;

/**
 * Runs a written ONNX folder in its client: without and with its cache, alone and in a batch of two with left padding;
 * all logits are compared with those of the source's fixed window. Throws a UserError (exit 1) on a mismatch.
 */
export async function verifyOnnx(
  folder: string,
  source: OpenedModel,
  engine: Engine,
  isRounded: boolean,
): Promise<Verification> {
  const { maxPositions, vocabSize } = source.model.config;
  const length = Math.min(LENGTHS[0], maxPositions);
  const padding = length - Math.max(1, Math.min(LENGTHS[1], length - 1));
  const random = createRandom(0);
  const tokens = (count: number) =>
    Array.from({ length: count }, () => Math.floor(random.uniform() * vocabSize));
  const [prompt, other] = [tokens(length), tokens(length - padding)];
  const [zeros, ones] = [repeated(0, padding), repeated(1, length)];

  const expected = await windowLogits(source, engine, [prompt, [...other, ...zeros]]);
  const meter = new DeviationMeter();
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
  const deviation = meter.result();
  const limit = isRounded ? 0.05 * meter.scale : 1e-4 * Math.max(1, meter.scale / 10);
  if (!(deviation.largest <= limit))
    throw mismatch(`logits differ by ${deviation.largest}, at most ${limit} is expected`);
  return { what: "logits", ...deviation };
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

/** Opens a written folder and compares every tensor with its source. Throws a UserError (exit 1) on a mismatch. */
export async function verifyWeights(folder: string, source: OpenedModel): Promise<Verification> {
  const written = await openModel(folder);
  const meter = new DeviationMeter();
  for (const [name, info] of source.weights)
    if (!(await sameWeight(info, written.weights.get(name)!, meter)))
      throw mismatch(`tensor "${name}" is another`);
  compareTemperatures(source.temperatures, written.temperatures);
  return { what: "weights", ...meter.result() };
}

/** Opens a written adapter and compares every temperature with its source. Throws a UserError (exit 1) on a mismatch. */
export async function verifyAdapter(folder: string, source: OpenedModel): Promise<Verification> {
  const config = join(folder, ADAPTER_CONFIG);
  const { tensors } = await openSafetensors(join(folder, ADAPTER_WEIGHTS));
  const values = new Map<string, Float32Array>();
  for (const [name, info] of tensors) values.set(name, await readFloats(info));
  const insertion = temperatures.fromJson(config, await readJson(config));
  compareTemperatures(source.temperatures, { insertion, values });
  const numValues = [...values.values()].reduce((sum, { length }) => sum + length, 0);
  return { what: "temperatures", numValues, largest: 0, relative: 0 };
}

function compareTemperatures(source?: Inserted, written?: Inserted): void {
  if (JSON.stringify(written?.insertion.spec) !== JSON.stringify(source?.insertion.spec))
    throw mismatch("the temperatures are of another form");
  for (const [name, values] of source?.values ?? []) {
    const copy = written?.values.get(name);
    if (copy?.length !== values.length || !values.every((value, i) => value === copy[i]))
      throw mismatch(`temperature "${name}" is another`);
  }
}

/** Logits [B, T, V] of the source, evaluated as `ssa eval` does. */
async function windowLogits(
  source: OpenedModel,
  engine: Engine,
  rows: readonly (readonly number[])[],
): Promise<Float32Array> {
  const window = { batchSize: rows.length, context: rows[0]!.length };
  const outputs = simplify({ logits: logitsOf(buildForward(source, window)) });
  const program = await engine.compile(outputs, boundWeights(source));
  try {
    const { logits } = await program.run({ ids: BigInt64Array.from(rows.flat(), BigInt) });
    return logits!.slice();
  } finally {
    await program.dispose();
  }
}

function mismatch(problem: string): UserError {
  return new UserError(`what was written is not the source: ${problem}`, {
    hint: "nothing was kept; this is a mistake of ssa or of the disk: please report it",
    exitCode: 1,
  });
}
