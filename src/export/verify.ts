// Nothing is written on trust: what an export wrote is opened as its users open it and compared with its source.
// B = batch, T = sequence, V = vocabulary

import { statSync } from "node:fs";
import { join } from "node:path";
import { UserError } from "../core/errors.ts";
import { freeMemory } from "../core/memory.ts";
import { createRandom } from "../core/random.ts";
import { filesBelow } from "../files/atomic.ts";
import type { Inserted } from "../insertions/insertion.ts";
import { INSERTION_KINDS } from "../insertions/kinds.ts";
import { simplify } from "../graph/passes.ts";
import { boundWeights, buildForward, logitsOf } from "../model/graph.ts";
import { readInsertions } from "../model/inserted.ts";
import { openModel } from "../model/open.ts";
import { countParameters, type OpenedModel } from "../model/opened.ts";
import { withEngine } from "../model/places.ts";
import { openClient, type Past } from "./client.ts";
import { type Deviation, DeviationMeter, sameWeight } from "../model/weights.ts";

/** What an export is for, and what of it is compared with its source. */
const compared = {
  safetensors: "weights",
  transformers: "weights",
  adapter: "temperatures",
  onnx: "logits",
} as const;
/** Of an export's bytes in its client, which widens half precision and packs matrices anew: up to 3.8 were measured. */
const CLIENT_COPIES = 4;

export type Target = keyof typeof compared;
export const TARGETS = Object.keys(compared) as Target[];

export interface Verification extends Deviation {
  readonly what: (typeof compared)[Target];
}

/**
 * Compares a written folder with its source; `isRounded` allows for logits of half precision. Where the client would have
 * no room, `readBack` says whether the files are what they should be. Throws a UserError (exit 1) on a mismatch.
 */
export async function verify(
  target: Target,
  folder: string,
  source: OpenedModel,
  isRounded = false,
  readBack?: () => Promise<boolean>,
): Promise<Verification> {
  const meter = new DeviationMeter();
  const files = await filesBelow(join(folder, "onnx"));
  const bytes = files.reduce((sum, path) => sum + statSync(path).size, 0);
  if (readBack && CLIENT_COPIES * bytes > freeMemory()) {
    if (!(await readBack())) throw mismatch("what was read back is not what was written");
    meter.numValues = countParameters(source.model);
    return { what: "weights", ...meter.result() };
  }
  if (target === "onnx") await compareLogits(folder, source, meter, isRounded);
  else if (compared[target] === "weights")
    await compareTensors(source, await openModel(folder), meter);
  else {
    const inserted = await readInsertions(folder, source.model);
    await compareTensors({ ...source, weights: new Map() }, inserted, meter);
  }
  return { what: compared[target], ...meter.result() };
}

/** Every tensor of the source: weights by their bytes after the conversion, what is inserted by value. */
async function compareTensors(
  { weights, ...source }: OpenedModel,
  written: Partial<OpenedModel>,
  meter: DeviationMeter,
): Promise<void> {
  for (const [name, info] of weights) {
    const copy = written.weights?.get(name);
    if (!copy || !(await sameWeight(info, copy, meter)))
      throw mismatch(`tensor "${name}" is another`);
  }
  const formOf = (inserted?: Inserted) => JSON.stringify(inserted?.insertion.spec);
  for (const kind of INSERTION_KINDS) {
    if (formOf(written[kind]) !== formOf(source[kind]))
      throw mismatch(`${kind} of another form were written`);
    for (const [name, values] of source[kind]?.values ?? []) {
      const copy = written[kind]?.values.get(name);
      if (copy?.length !== values.length || !values.every((value, i) => value === copy[i]))
        throw mismatch(`tensor "${name}" is another`);
      meter.numValues += values.length;
    }
  }
}

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
  const { maxCached, config } = source.model;
  const V = config.vocabSize;
  const length = Math.min(24, maxCached);
  const padding = length - Math.max(1, Math.min(15, length - 1));
  const random = createRandom(0);
  const rows = [0, padding].map((pad) => {
    const zeros = Array<number>(pad).fill(0);
    const tokens = Array.from({ length: length - pad }, () => Math.floor(random.uniform() * V));
    const mask = [...zeros, ...tokens.map(() => 1)];
    return { pad, window: [...tokens, ...zeros], ids: [...zeros, ...tokens], mask };
  });
  const windows = rows.map(({ window }) => window);
  const expected = await windowLogits(source, windows);
  const odd = expected.find((logit) => !Number.isFinite(logit));
  if (odd !== undefined)
    throw new UserError(`a logit of ${source.name} is ${odd}`, {
      hint: "are the model's weights intact, and its numbers within its number format?",
      exitCode: 1,
    });
  const client = await openClient(folder);
  /** Runs some columns of the first rows behind what an earlier call left, and compares what is no padding. */
  const check = async (numRows: number, start: number, stop: number, past?: Past) => {
    const batch = rows.slice(0, numRows);
    const columns = batch.map(({ ids }) => ids.slice(start, stop));
    const seen = batch.map(({ mask }) => mask.slice(0, stop));
    const step = await client.forward(columns, seen, past);
    for (const [row, { pad }] of batch.entries()) {
      const first = Math.min(stop, Math.max(start, pad));
      const at = (column: number) => (row * length + column - pad) * V;
      const end = (row + 1) * (stop - start);
      const actual = step.logits.subarray((end - (stop - first)) * V, end * V);
      meter.add(expected.subarray(at(first), at(stop)), actual);
    }
    return step.past;
  };
  try {
    await check(1, 0, length);
    const half = Math.ceil(length / 2);
    let past: Past | undefined;
    // Half of it, three tokens at once, then one by one.
    for (let start = 0, stop = half; start < length; [start, stop] = [stop, stop + 1]) {
      if (start === half) stop = Math.min(half + 3, length);
      past = await check(2, start, stop, past);
    }
  } finally {
    await client.dispose();
  }
  const { largest, scale } = meter;
  const limit = isRounded ? 0.05 * scale : 1e-4 * Math.max(1, scale / 10);
  if (!(largest <= limit))
    throw mismatch(`logits differ by ${largest}, at most ${limit} is expected`);
}

/** Logits [B, T, V] of the source, evaluated as `ssa eval` does. */
function windowLogits(source: OpenedModel, rows: readonly (readonly number[])[]) {
  const window = { batchSize: rows.length, context: rows[0]!.length };
  const outputs = simplify({ logits: logitsOf(buildForward(source, window)) });
  return withEngine({ device: "cpu", threads: "auto" }, {}, async (engine) => {
    const program = await engine.compile(outputs, boundWeights(source));
    const { logits } = await program.run({ ids: BigInt64Array.from(rows.flat(), BigInt) });
    return logits!.slice();
  });
}

function mismatch(problem: string): UserError {
  return new UserError(`what was written is not the source: ${problem}`, {
    hint: "nothing was kept; this is a mistake of ssa or of the disk: please report it",
    exitCode: 1,
  });
}
