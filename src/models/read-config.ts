// What families' configs have in common: sizes, and the names and windows of Llama's descendants.

import { UserError } from "../core/errors.ts";
import { activationNamed } from "../nn/layers.ts";
import type { DecoderConfig } from "./architecture.ts";
import type { ConfigReader, Key } from "./config.ts";
import { readRotary } from "./rope-config.ts";

interface ConfigKeys {
  readonly numLayers: string;
  readonly hiddenSize: string;
  readonly numHeads: string;
  readonly intermediateSize: Key<number>;
  readonly maxPositions: Key<number>;
  readonly normEpsilon: Key<number>;
  readonly activation: Key<string>;
  /** Where `tie_word_embeddings` is absent. */
  readonly isTied: boolean;
  /** Where `head_dim` is absent; hidden size over heads by default. */
  readonly headDim?: number;
}

/** The names that families agree on. */
export const KEYS = {
  numLayers: "num_hidden_layers",
  hiddenSize: "hidden_size",
  numHeads: "num_attention_heads",
  intermediateSize: ["intermediate_size"],
  isTied: false,
} as const;

export function readSizes(config: ConfigReader, keys: ConfigKeys) {
  const [hiddenSize, numHeads] = [config.count(keys.hiddenSize), config.count(keys.numHeads)];
  /** A size that must be a multiple of another. */
  const divided = (total: number, parts: number, what: string): number => {
    if (total % parts === 0) return total / parts;
    throw new UserError(`${config.path}: ${what}: ${total} is not a multiple of ${parts}`);
  };
  const numKeyValueHeads = config.count("num_key_value_heads", numHeads);
  divided(numHeads, numKeyValueHeads, `${keys.numHeads} over num_key_value_heads`);
  const headDim = config.has("head_dim") ? config.count("head_dim") : keys.headDim;
  return {
    numLayers: config.count(keys.numLayers),
    hiddenSize,
    numHeads,
    numKeyValueHeads,
    headDim: headDim ?? divided(hiddenSize, numHeads, `${keys.hiddenSize} over ${keys.numHeads}`),
    intermediateSize: config.count(...keys.intermediateSize),
    vocabSize: config.count("vocab_size"),
    maxPositions: config.count(...keys.maxPositions),
    normEpsilon: config.number(...keys.normEpsilon),
    isTied: config.flag("tie_word_embeddings", keys.isTied),
    initializerRange: config.number("initializer_range", 0.02),
    activation: activationNamed(config.text(...keys.activation)),
  };
}

type LlamaSettings = Pick<
  DecoderConfig,
  "maxPositions" | "windows" | "hasAttentionBias" | "hasOutputBias" | "hasMlpBias"
> & { readonly headDim?: number };

/** A config with Llama's names; its family says the rest. */
export function readLlama(
  config: ConfigReader,
  { maxPositions, headDim, ...settings }: LlamaSettings,
): DecoderConfig {
  const sizes = readSizes(config, {
    ...KEYS,
    maxPositions: ["max_position_embeddings", maxPositions],
    normEpsilon: ["rms_norm_eps", 1e-6],
    activation: ["hidden_act", "silu"],
    ...(headDim && { headDim }),
  });
  return {
    ...sizes,
    ...settings,
    rotary: readRotary(config, sizes),
    isParallel: false,
    scaleByHeadDim: true,
    scaleByLayer: false,
  };
}

/** Qwen's: where `use_sliding_window` says so the layers from `max_window_layers` on slide, or those of `layer_types`. */
export function readLastWindows(config: ConfigReader): (number | null)[] {
  const size = config.countOrNull("sliding_window", 4096);
  const window = config.flag("use_sliding_window", false) ? size : null;
  const firstSliding = config.number("max_window_layers", 28);
  const kinds = { full_attention: null, ...(window && { sliding_attention: window }) };
  const numLayers = config.count(KEYS.numLayers);
  const types = config.list("layer_types");
  if (types && types.length !== numLayers)
    throw new UserError(`${config.path}: ${types.length} layer_types for ${numLayers} layers`);
  return Array.from({ length: numLayers }, (_, layer) => {
    if (!types) return layer >= firstSliding ? window : null;
    const type = String(types[layer]);
    if (Object.hasOwn(kinds, type)) return kinds[type as keyof typeof kinds] ?? null;
    throw new UserError(`${config.path}: layer_types: "${type}" is not supported`, {
      hint: `supported: ${Object.keys(kinds).join(", ")}${window ? "" : " (a window is not in use)"}`,
    });
  });
}
