// A run's state on disk: trained tensors, moments and counters to and from a snapshot.

import { existsSync } from "node:fs";
import { join } from "node:path";
import { encodeFloats } from "../core/dtype.ts";
import { UserError } from "../core/errors.ts";
import type { DataCursor } from "../data/windows.ts";
import { type Snapshot, snapshotFiles } from "../files/run-folder.ts";
import {
  openSafetensors,
  readFloats,
  type TensorInfo,
  type TensorSource,
} from "../files/safetensors.ts";
import { temperatures } from "../insertions/temperatures.ts";
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
  const source = ({ shape }: TrainedTensor, name: string, values: Float32Array): TensorSource => {
    return { name, dtype: "F32", shape, data: encodeFloats("F32", values) };
  };
  const valuesOf = (areTemperatures: boolean) =>
    tensors
      .filter(({ name }) => temperatures.owns(name) === areTemperatures)
      .map((tensor) => source(tensor, tensor.name, tensor.values));
  return {
    step: state.loop.step,
    tensors: {
      adapter: valuesOf(true),
      trained: valuesOf(false),
      optimizer: tensors.flatMap((tensor) => [
        source(tensor, `mean.${tensor.name}`, tensor.mean),
        source(tensor, `square.${tensor.name}`, tensor.square),
      ]),
    },
    state,
  };
}

/** Loads a snapshot's values and moments into the tensors. */
export async function restoreTensors(
  dir: string,
  tensors: readonly TrainedTensor[],
): Promise<void> {
  const stored = await storedTensors(dir);
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

/** Every tensor of a snapshot, by name. */
async function storedTensors(dir: string): Promise<Map<string, TensorInfo>> {
  const { adapter, trained, optimizer } = snapshotFiles;
  const all = new Map<string, TensorInfo>();
  for (const file of [adapter, trained, optimizer]) {
    const path = join(dir, file);
    if (!existsSync(path)) continue;
    for (const [name, info] of (await openSafetensors(path)).tensors) all.set(name, info);
  }
  return all;
}
