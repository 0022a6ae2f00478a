// The contract of what is put into a base: parameters of its own beside the weights, and where they enter the graph.

import type { Random } from "../core/random.ts";
import { sizeOf, type Shape } from "../core/shape.ts";
import type { Tensor } from "../graph/tensor.ts";
import type { Hooks, Projection, ProjectionPlace } from "../nn/attention.ts";
import type { Positions } from "../nn/positions.ts";

type Count = "numLayers" | "numHeads" | "numKeyValueHeads" | "headDim" | "hiddenSize";

/** What an insertion needs to know of a model. */
export interface Host {
  readonly config: Readonly<Record<Count, number>>;
  readonly weights: ReadonlyMap<string, Shape>;
  /** Features in and out of every linear layer within the blocks, by module. */
  readonly linears: ReadonlyMap<string, readonly [number, number]>;
  /** Of their weights: [out, in] or [in, out]. */
  readonly layout: "FD" | "DF";
  readonly attentionPrefix: (layer: number) => string;
  readonly placeOf: (layer: number, projection: Projection) => ProjectionPlace | null;
}

/** What is inserted, as specified; the values of its parameters are apart. */
export interface Insertion {
  /** Plain data, to be compared and printed. */
  readonly spec: object;
  /** The content of its config file, without an adapter's `base_*` fields. */
  readonly toJson: (host: Host) => Readonly<Record<string, unknown>>;
  /** By their names in files, in a fixed order. */
  readonly parameters: (host: Host) => ReadonlyMap<string, Parameter>;
  /** Whether it is the same for every token. */
  readonly isConstant: boolean;
  /** What of it changes the base before it is trained, in words. */
  readonly changes: readonly string[];
  /** In words, by kind of place. */
  readonly describe: (host: Host) => readonly Description[];
  readonly hooks: (host: Host, context: HookContext) => Hooks;
  /** What can become part of the base's weights; null where nothing can. */
  readonly fold: (host: Host, values: Values) => Folding | null;
}

type Description = Readonly<Record<"place" | "form" | "extent", string> & { parameters: number }>;

export interface Parameter {
  readonly shape: Shape;
  /** Of each element; the model is then the base, bit for bit, but for what `changes` names. */
  readonly initial: (random: Random) => number;
}

export type Values = ReadonlyMap<string, Float32Array>;

export type Inserted = Readonly<{ insertion: Insertion; values: Values }>;

/** An insertion before training. */
export function withInitialValues(insertion: Insertion, host: Host, random: Random): Inserted {
  const values = Array.from(insertion.parameters(host), ([name, { shape, initial }]) => {
    return [name, new Float32Array(sizeOf(shape)).map(() => initial(random))] as const;
  });
  return { insertion, values: new Map(values) };
}

export interface HookContext {
  readonly parameter: (name: string) => Tensor;
  readonly positions: Positions;
  /** As Tiling has it. */
  readonly joinsHeads?: boolean;
  /** Called with what it makes of each layer and projection, as it is built. */
  readonly observe?: Observer | undefined;
}

export type Observer = (layer: number, projection: Projection, made: Tensor) => void;

export interface Folding {
  /** In place, of weights by canonical name; a weight may be changed several times. */
  readonly changes: readonly { name: string; change: (values: Float32Array) => void }[];
  /** What stays inserted. */
  readonly rest: Inserted | null;
}
