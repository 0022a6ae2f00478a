// A run's state on disk: trained tensors, moments and counters to and from a snapshot.

import { readdir } from "node:fs/promises";
import { join } from "node:path";
import { encodeFloats } from "../core/dtype.ts";
import { UserError } from "../core/errors.ts";
import type { DataCursor } from "../data/training.ts";
import type { Snapshot } from "../files/run-folder.ts";
import { openSafetensors, readFloats, type TensorSource } from "../files/safetensors.ts";
import { kindOf, ownName } from "../insertions/kinds.ts";
import type { TrainedTensor } from "./adamw.ts";
import type { LoopState } from "./loop.ts";

/** All but the tensors that a resumed run needs. */
export interface RunState {
  readonly loop: LoopState;
  readonly cursor: DataCursor;
  /** Training targets so far, the seconds spent on their steps, and those of the whole run. */
  readonly numTokens: number;
  readonly trainSeconds: number;
  readonly elapsedSeconds: number;
}

export function toSnapshot(tensors: readonly TrainedTensor[], state: RunState): Snapshot {
  const source = (name: string, shape: readonly number[], values: Float32Array): TensorSource => {
    return { name, dtype: "F32", shape, data: encodeFloats("F32", values) };
  };
  const all = tensors.map(({ name, shape, values }) => source(name, shape, values));
  const optimizer = tensors.flatMap(({ name, shape, mean, square }) => [
    source(`mean.${name}`, shape, mean),
    source(`square.${name}`, shape, square),
  ]);
  const adapter = all.filter(({ name }) => kindOf("temperatures").owns(name));
  const ofLora = all.filter(({ name }) => kindOf("lora").owns(name));
  const trained = all.filter((tensor) => !adapter.includes(tensor) && !ofLora.includes(tensor));
  // Under the names of their files, so that a snapshot is an adapter.
  const { prefix } = kindOf("lora");
  const lora = ofLora.map((tensor) => ({ ...tensor, name: prefix + tensor.name }));
  return { step: state.loop.step, tensors: { adapter, lora, trained, optimizer }, state };
}

/** Loads a snapshot's values and moments into the tensors. */
export async function restoreTensors(dir: string, tensors: readonly TrainedTensor[]) {
  const names = (await readdir(dir)).filter((name) => name.endsWith(".safetensors"));
  const files = await Promise.all(names.map((name) => openSafetensors(join(dir, name))));
  const all = files.flatMap((file) => [...file.tensors]);
  const stored = new Map(all.map(([name, info]) => [ownName(name), info]));
  const load = async (name: string, into: Float32Array) => {
    const info = stored.get(name);
    if (info === undefined || info.byteLength !== into.byteLength)
      throw new UserError(`${dir}: tensor "${name}" does not fit this run`, { exitCode: 1 });
    into.set(await readFloats(info));
  };
  for (const { name, values, mean, square } of tensors) {
    await load(name, values);
    await load(`mean.${name}`, mean);
    await load(`square.${name}`, square);
  }
}
