// The contract between a family's file, the decoder that all families share, and the rest of the program.

import type { Shape } from "../core/shape.ts";
import type { Tensor } from "../graph/tensor.ts";
import type { AttentionHooks, Projection, ProjectionPlace } from "../nn/attention.ts";
import type { Positions } from "../nn/positions.ts";
import type { RotaryConfig } from "../nn/rotary.ts";
import type { ConfigReader, ModelConfig } from "./config.ts";

/** A row of the table of families: names of modules in checkpoints, and what a config means. */
export interface Family {
  /** Of all names but the output embedding's; some checkpoints were saved without it. */
  readonly prefix: string;
  readonly embeddings: {
    readonly input: string;
    /** Learned ones. */
    readonly positions: string | null;
    /** Where it is not tied. */
    readonly output: string;
  };
  readonly layers: string;
  readonly norms: readonly [attention: string, mlp: string, final: string];
  readonly attention: {
    readonly name: string;
    /** Norms of each head's query and key; these and all projections are below `name`. */
    readonly headNorms: readonly [query: string, key: string] | null;
    readonly output: string;
  };
  /** Query, key and value are three modules, three parts of one, or three parts of each of its heads. */
  readonly projections: {
    readonly names: readonly string[];
    readonly split: "modules" | "parts" | "heads";
  };
  readonly mlp: { readonly gate: string | null; readonly up: string; readonly down: string };
  readonly norm: "layer" | "rms";
  /** PyTorch's Linear keeps a weight as [out, in], GPT-2's Conv1D as [in, out]. */
  readonly layout: "FD" | "DF";
  /** Its names for what config.json calls otherwise in most families; the first that is set counts. */
  readonly aliases: Readonly<Record<string, readonly string[]>>;
  /** What the absence of a size means. */
  readonly defaults: Pick<ModelConfig, "maxPositions" | "normEpsilon" | "activation" | "isTied">;
  /** Else hidden size over heads. */
  readonly headDim?: number;
  /** Feed-forward over hidden size, where it may be absent. */
  readonly intermediateRatio?: number;
  readonly readSettings: (config: ConfigReader, sizes: ModelConfig) => Settings;
}

export interface Settings {
  /** null: positions are learned. */
  readonly rotary: RotaryConfig | null;
  /** Keys that a query of each layer sees, its own among them; null: all. */
  readonly windows: readonly (number | null)[];
  /** Of query, key and value. */
  readonly hasAttentionBias: boolean;
  /** Of the projection of what was attended to. */
  readonly hasOutputBias: boolean;
  readonly hasMlpBias: boolean;
  /** Attention and feed-forward see the same input. */
  readonly isParallel: boolean;
  /** Attention's logits are divided by √(head dim), by layer + 1. */
  readonly scaleByHeadDim: boolean;
  readonly scaleByLayer: boolean;
}

export interface ForwardContext {
  /** A weight by its canonical name; those of normalizations are F32, the others all of one format. */
  readonly weight: (name: string, shape: Shape, group: WeightGroup) => Tensor;
  /** Token ids, I64 [B, T]. */
  readonly ids: Tensor;
  readonly positions: Positions;
  readonly hooks: AttentionHooks;
  /** Marks what the backward pass should find in memory, if activations are recomputed; gives it back. */
  readonly keep: (x: Tensor, part: KeptPart) => Tensor;
}

/** A point of the residual stream, or the result of a matrix product that costs much to compute again. */
export type KeptPart = "stream" | "product";

/** A family with a config applied: nothing outside needs to know which it is. */
export interface Model {
  readonly config: ModelConfig;
  /** Every weight by its canonical Hugging Face name, with its shape; a tied output embedding has none. */
  readonly weights: ReadonlyMap<string, Shape>;
  /** The canonical name of a stored tensor, or null for a buffer that is no weight. */
  readonly canonicalName: (stored: string) => string | null;
  readonly inputEmbedding: string;
  /** The stored output embedding, where it is not tied. */
  readonly outputEmbedding: string;
  /** Prefix of a layer's attention, without a trailing dot. */
  readonly attentionPrefix: (layer: number) => string;
  /** Where a projection's weights lie; null where a gain of its heads would be lost, as before a norm. */
  readonly placeOf: (layer: number, projection: Projection) => ProjectionPlace | null;
  readonly groupOf: (name: string) => WeightGroup;
  /** Hidden states after the last norm, [B, T, D]. */
  readonly forward: (context: ForwardContext) => Tensor;
}

/** What can be tuned apart, and what is counted apart. */
export type WeightGroup = "embeddings" | "norms" | "biases" | "matrices";
