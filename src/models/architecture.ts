// The contract of a model file: what it reads from the config, which weights it has, and its forward pass.

import type { Shape } from "../core/shape.ts";
import type { Tensor } from "../graph/tensor.ts";
import type { AttentionHooks, Projection, ProjectionPlace } from "../nn/attention.ts";
import type { Positions } from "../nn/positions.ts";
import type { ConfigReader, ModelConfig } from "./config.ts";

export interface ForwardContext {
  /** A weight by its canonical name; those of normalizations are F32, the others all of one format. */
  readonly weight: (name: string) => Tensor;
  /** Token ids, I64 [B, T]. */
  readonly ids: Tensor;
  readonly positions: Positions;
  readonly hooks: AttentionHooks;
  /** Marks what the backward pass should find in memory, if activations are recomputed; gives it back. */
  readonly keep: (x: Tensor, part: KeptPart) => Tensor;
}

/** A point of the residual stream, or the result of a matrix product that costs much to compute again. */
export type KeptPart = "stream" | "product";

export interface Architecture<Config extends ModelConfig> {
  readonly readConfig: (config: ConfigReader) => Config;
  /** Every weight by its canonical Hugging Face name, with its shape; a tied output embedding has none. */
  readonly weights: (config: Config) => ReadonlyMap<string, Shape>;
  /** The canonical name of a stored tensor, or null for a buffer that is no weight. */
  readonly canonicalName: (stored: string) => string | null;
  readonly inputEmbedding: string;
  /** The stored output embedding, where it is not tied. */
  readonly outputEmbedding: string;
  /** Prefix of a layer's attention, without a trailing dot. */
  readonly attentionPrefix: (layer: number) => string;
  /** Where a projection's weights lie; null where a gain of its heads would be lost, as before a norm. */
  readonly placeOf: (
    config: Config,
    layer: number,
    projection: Projection,
  ) => ProjectionPlace | null;
  /** Whether a weight belongs to a normalization layer. */
  readonly isNorm: (name: string) => boolean;
  /** Hidden states after the last norm, [B, T, D]. */
  readonly forward: (config: Config, context: ForwardContext) => Tensor;
}

/** An architecture with a config applied: nothing outside needs to know which it is. */
export interface Model {
  readonly config: ModelConfig;
  readonly weights: ReadonlyMap<string, Shape>;
  readonly canonicalName: (stored: string) => string | null;
  readonly inputEmbedding: string;
  readonly outputEmbedding: string;
  readonly attentionPrefix: (layer: number) => string;
  readonly placeOf: (layer: number, projection: Projection) => ProjectionPlace | null;
  readonly groupOf: (name: string) => WeightGroup;
  readonly forward: (context: ForwardContext) => Tensor;
}

/** What can be tuned apart, and what is counted apart. */
export type WeightGroup = "embeddings" | "norms" | "biases" | "matrices";

export function applyConfig<Config extends ModelConfig>(
  architecture: Architecture<Config>,
  reader: ConfigReader,
): Model {
  const config = architecture.readConfig(reader);
  return {
    ...architecture,
    config,
    weights: architecture.weights(config),
    placeOf: (layer, projection) => architecture.placeOf(config, layer, projection),
    groupOf: (name) => {
      if (architecture.isNorm(name)) return "norms";
      if (name.endsWith(".bias")) return "biases";
      return /(wte|wpe|embed_tokens|embed_in|lm_head|embed_out)\.weight$/.test(name)
        ? "embeddings"
        : "matrices";
    },
    forward: (context) => architecture.forward(config, context),
  };
}

/** Prefixes the names of a layer's weights; entries of undefined shape are absent. */
export function prefixed(
  prefix: string,
  shapes: Readonly<Record<string, Shape | undefined>>,
): [string, Shape][] {
  return Object.entries(shapes).flatMap(([name, shape]) =>
    shape ? [[`${prefix}.${name}`, shape]] : [],
  );
}

/** 0, 1, .. count - 1 */
export const range = (count: number) => Array.from({ length: count }, (_, i) => i);
