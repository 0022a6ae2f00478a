// A fine-tuning run of seconds for tests: a tiny fixture model, tokens made here, any recipe, stopped where a test says.

import { mkdir, readdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { createRandom } from "../../src/core/random.ts";
import type { Engine } from "../../src/engines/index.ts";
import { readLines } from "../../src/files/json.ts";
import { snapshotFiles } from "../../src/files/names.ts";
import { openSafetensors, readFloats } from "../../src/files/safetensors.ts";
import { placesOf } from "../../src/model/places.ts";
import { recipeSchema } from "../../src/options/schema.ts";
import { trainRun } from "../../src/run/fine-tune.ts";
import { fitRun, type OnEngine } from "../../src/run/fit.ts";
import { prepareRun } from "../../src/run/prepare.ts";
import type { Outcome } from "../../src/run/training.ts";
import type { RunEvent } from "../../src/run/work.ts";

/** A model folder of the fixtures. */
export function fixture(name = "gpt2"): string {
  return fileURLToPath(new URL(`../fixtures/${name}`, import.meta.url));
}

/** Writes train.bin and val.bin into `folder`: tokens that follow from the one before, with noise, so they can be learnt. */
export async function writeTokens(folder: string, vocabSize = 37): Promise<string> {
  await mkdir(folder, { recursive: true });
  for (const [name, length, seed] of [
    ["train.bin", 1201, 1],
    ["val.bin", 203, 2],
  ] as const) {
    const random = createRandom(seed);
    const tokens = new Uint16Array(length);
    for (let i = 1; i < length; i++)
      tokens[i] =
        random.uniform() < 0.8
          ? (tokens[i - 1]! * 3 + 1) % vocabSize
          : random.uniform() * vocabSize;
    await writeFile(join(folder, name), new Uint8Array(tokens.buffer));
  }
  return folder;
}

export interface SmallRun {
  readonly engine: Engine;
  readonly folder: string;
  /** Folder of train.bin and val.bin; by default made beside the run. */
  readonly data?: string;
  readonly model?: string;
  readonly recipe?: Readonly<Record<string, unknown>>;
  readonly isResumed?: boolean;
  readonly takesTurns?: boolean;
  readonly onEngine?: OnEngine;
  /** Asked at each event; true stops the run. */
  readonly stopAt?: (event: RunEvent) => boolean;
}

export const smallRecipe = {
  steps: 8,
  evalEvery: 3,
  saveEvery: 2,
  evalWindows: 5,
  gradientAccumulationSteps: 2,
  learningRate: 0.02,
  warmupSteps: 2,
  maxAddedShare: 0.5,
  device: "cpu",
} as const;

/** Runs, and gives the events with the result; a run that fails rejects. */
export async function smallRun(run: SmallRun): Promise<Outcome & { events: RunEvent[] }> {
  const { engine, folder, model = fixture(), isResumed = false, takesTurns = false, stopAt } = run;
  const data = run.data ?? (await writeTokens(`${folder}-data`));
  const given = { base: model, data, out: folder, ...smallRecipe, ...run.recipe };
  const prepared = await prepareRun(recipeSchema.parse(given), placesOf({}));
  const machine = { programBytes: 0, freeBytes: 1e12, engine };
  const onEngine: OnEngine = async (work, choose) =>
    work(engine, { ...fitRun(prepared, machine, await choose?.(engine)), takesTurns });
  const events: RunEvent[] = [];
  const stop = new AbortController();
  const result = await trainRun(prepared, {
    isResumed,
    onEngine: run.onEngine ?? onEngine,
    onEvent: (event) => {
      events.push(event);
      if (stopAt?.(event)) stop.abort();
    },
    signal: stop.signal,
  });
  return { ...result, events };
}

/** All that a finished run leaves but for times and memory: tensors as numbers, the order of data, metrics, report. */
export async function outcomeOf(folder: string) {
  const last = (await readdir(folder))
    .filter((name) => name.startsWith("step-"))
    .sort()
    .at(-1)!;
  const path = join(folder, last);
  const { state } = await readJson(join(path, snapshotFiles.state));
  const { loop, cursor, numTokens } = state as Record<string, unknown>;
  const { after, before, delta, temperatures, finalStep } = await readJson(
    join(folder, "report.json"),
  );
  const metrics = (await readLines(join(folder, "metrics.jsonl"))).map((record) => ({
    ...record,
    tokensPerSecond: 0,
  }));
  return {
    last,
    tensors: await tensorsIn(path),
    final: await tensorsIn(join(folder, "final")),
    state: { loop, cursor, numTokens },
    metrics,
    report: { after, before, delta, temperatures, finalStep },
  };
}

/** Every tensor of the safetensors files in a folder, by file and name; what PyTorch computed and buffers left out. */
export async function tensorsIn(folder: string): Promise<Record<string, number[]>> {
  const all: Record<string, number[]> = {};
  for (const file of (await readdir(folder)).toSorted())
    if (file.endsWith(".safetensors") && file !== "expected.safetensors")
      for (const [name, info] of (await openSafetensors(join(folder, file))).tensors)
        if (info.dtype === "F32") all[`${file} ${name}`] = [...(await readFloats(info))];
  return all;
}

export async function readJson(path: string): Promise<Record<string, unknown>> {
  return JSON.parse(await readFile(path, "utf8")) as Record<string, unknown>;
}
