// What an engine offers: a graph compiled once, run many times.

import type { Precision } from "../core/dtype.ts";
import type { Outputs } from "../graph/tensor.ts";
import type { Tiling } from "../nn/tiling.ts";

/** Values by input name; shapes are the graph's. */
export type Feeds = Readonly<Record<string, Float32Array | BigInt64Array>>;
/** Values by output name; the run that is as many later as there are lanes, or its `ahead` of a program, overwrites them. */
export type Results = Readonly<Record<string, Float32Array>>;

/** Where a parameter's bytes are: a range of a file, or memory. Little-endian, of the parameter's dtype. */
export type Weight =
  | { readonly file: string; readonly offset: number; readonly byteLength: number }
  | Uint8Array;

/** Results that are added to those of the runs before, and the run's place among them, from 0. */
export interface Adding {
  readonly index: number;
  readonly names: readonly string[];
}

export interface Program {
  /** As many runs at a time as the engine has lanes; results by output name. */
  run(feeds: Feeds, adding?: Adding): Promise<Results>;
  /** Where processes share large sums: those of all runs that were `adding`, which did not return them. */
  readonly take?: ((names: readonly string[]) => Promise<Results>) | undefined;
  /** How many runs may be asked for, and be more than lanes, before the first one's results are taken. */
  readonly ahead?: number | undefined;
  /** Waits for a run in progress, then releases all that the program holds. */
  dispose(): Promise<void>;
}

/** Bytes in this process's memory, and on a device with memory of its own; 0 without one. */
export interface Room {
  readonly host: number;
  readonly device: number;
}

export interface Engine {
  /** Where it computes, in a few words for people. */
  readonly description: string;
  /** The number formats in which it computes. */
  readonly precisions: readonly Precision[];
  /** Whether weights are used where their files are mapped, so that to compile again costs neither time nor memory for them. */
  readonly mapsWeights: boolean;
  readonly tiling: Tiling;
  /** How many runs go on at a time: one for each device. */
  readonly lanes: number;
  /** What it takes itself, once for all programs. */
  readonly room: Room;
  /** Bytes of a device's own memory that were free as it opened; undefined where nothing says them. */
  readonly deviceFree?: number | undefined;
  /** What a graph would take, compiled and run: in the process without the weights, on a device with them. */
  estimate(outputs: Outputs): Room;
  /** Compiles a graph of fixed shapes; parameters are bound by name and stay on the device. */
  compile(outputs: Outputs, weights: ReadonlyMap<string, Weight>): Promise<Program>;
  dispose(): Promise<void>;
}
