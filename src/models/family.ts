// What a family is: names of modules in checkpoints, and what a config means; index.ts has the rows.

import type { Activation } from "../nn/layers.ts";
import type { RotaryConfig } from "../nn/rotary.ts";
import type { ConfigReader, ModelConfig } from "./config.ts";
import type { RotaryDefaults } from "./settings.ts";

/** Norms of what a part of a layer reads, and of what it adds to the stream; null: none. */
export type AroundPart = readonly [before: string | null, after: string | null];

/** Norms before the parts of a layer, and one behind the layers. */
export const normsBefore = (attention: string, mlp: string, final: string): Family["norms"] => {
  return { attention: [attention, null], mlp: [mlp, null], final };
};

export interface Family {
  /** Of all names but the output embedding's; some checkpoints were saved without it. */
  readonly prefix: string;
  readonly embeddings: {
    readonly input: string;
    /** Learned ones. */
    readonly positions: string | null;
    /** Its rows before this one are not used. */
    readonly firstRow?: number;
    /** Where it is not tied. */
    readonly output: string;
  };
  readonly layers: string;
  readonly norms: {
    readonly attention: AroundPart;
    readonly mlp: AroundPart;
    readonly final: string;
  };
  readonly attention: {
    readonly name: string;
    /** Of query and key, each head by itself or all as one; these and all projections are below `name`. */
    readonly norms: {
      readonly names: readonly [string, string];
      readonly of: "head" | "all";
    } | null;
    readonly output: string;
  };
  /** Query, key and value are three modules, three parts of one, or three parts of each of its heads. */
  readonly projections: {
    readonly names: readonly string[];
    readonly split: "modules" | "parts" | "heads";
  };
  /** Below a layer. Gate and up may be one module, the gate first. */
  readonly mlp: { readonly gate: string | null; readonly up: string; readonly down: string };
  /** rmsPlusOne: RMS norms that multiply by 1 + their weight. */
  readonly norm: "layer" | "rms" | "rmsPlusOne";
  /** PyTorch's Linear keeps a weight as [out, in], GPT-2's Conv1D as [in, out]. */
  readonly layout: "FD" | "DF";
  /** Its names for what config.json calls otherwise in most families; the first that is set counts. */
  readonly aliases: Readonly<Record<string, readonly string[]>>;
  /** What the absence of a size means. */
  readonly defaults: Readonly<{
    maxPositions: number;
    normEpsilon: number;
    isTied: boolean;
    activation: Activation;
  }>;
  /** Else hidden size over heads. */
  readonly headDim?: number;
  /** Else as many as heads, which is also what null in the config means. */
  readonly keyValueHeads?: number;
  /** Feed-forward over hidden size, where it may be absent. */
  readonly intermediateRatio?: number;
  /** What the absence of rotary settings means, where all layers turn alike. */
  readonly rotary?: RotaryDefaults;
  /** Where they are not what most families have. */
  readonly readSettings: (config: ConfigReader, sizes: ModelConfig) => Partial<Settings>;
}

export type Settings = Readonly<typeof usual>;

/** What most families have. */
export const usual = {
  /** Of each layer; null or absent: none, as where positions are learned. By default those that all turn alike. */
  rotary: [] as readonly (RotaryConfig | null)[],
  /** Keys that a query of each layer sees, its own among them; null: all. */
  windows: [] as readonly (number | null)[],
  /** Of query, key and value. */
  hasAttentionBias: true,
  /** Of the projection of what was attended to. */
  hasOutputBias: true,
  hasMlpBias: true,
  /** Attention and feed-forward see the same input. */
  isParallel: false,
  /** Factor of attention's logits; null: 1 / √(head dim). */
  scale: null as number | null,
  /** They are divided by layer + 1 as well. */
  scaleByLayer: false,
  /** Soft caps c · tanh(x / c) of attention's logits, before the mask, and of the vocabulary's. */
  scoreCap: null as number | null,
  logitCap: null as number | null,
  /** Factors of the input embedding, of what each part adds to the stream, and of the vocabulary's logits. */
  embeddingScale: 1,
  residualScale: 1,
  logitScale: 1,
  /** Random weights of what is added to the stream are smaller, by 1 / √(2 layers). */
  startsSmall: false,
};
export const unbiased = { hasAttentionBias: false, hasOutputBias: false, hasMlpBias: false };

export const everyLayer = <Value>({ numLayers }: ModelConfig, value: Value) =>
  Array<Value>(numLayers).fill(value);
