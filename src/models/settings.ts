// Settings that several families read alike, or that one says in a way of its own.

import { unsupported, UserError } from "../core/errors.ts";
import { shown } from "../core/json.ts";
import type { RotaryConfig, RotaryScaling } from "../nn/rotary.ts";
import { type ConfigReader, configReader, type ModelConfig, readerInside } from "./config.ts";
import { unbiased } from "./family.ts";

export function attentionBias(config: ConfigReader, fallback: boolean) {
  const hasBias = config.flag("attention_bias", fallback);
  return { hasAttentionBias: hasBias, hasOutputBias: hasBias };
}

/** Keys that a query sees; null: all. Null in the config says something else than an absent key. */
export const slidingWindow = (config: ConfigReader, absent: number | null = 4096) =>
  config.isNull("sliding_window") || (absent === null && !config.has("sliding_window"))
    ? null
    : config.count("sliding_window", absent ?? undefined);

/** Of each layer: the window where it slides, which `layer_types` says or, where that is absent, the family's rule. */
export function layerWindows(
  config: ConfigReader,
  { numLayers }: ModelConfig,
  window: number | null,
  slides: (layer: number) => boolean,
): (number | null)[] {
  const types = config.has("layer_types") ? config.list("layer_types") : undefined;
  if (types && types.length !== numLayers)
    throw new UserError(`${config.path}: ${types.length} layer_types for ${numLayers} layers`);
  return Array.from({ length: numLayers }, (_, layer) => {
    if (!types) return slides(layer) ? window : null;
    if (types[layer] === "full_attention") return null;
    if (types[layer] === "sliding_attention" && window) return window;
    throw new UserError(`${config.path}: layer_types: ${shown(types[layer])} is not supported`, {
      hint: "supported: full_attention, and sliding_attention where a window is set and in use",
    });
  });
}

/** What Gemma 2 and 3 share; the caps are what their absence means, and null is none. */
export function gemma(
  config: ConfigReader,
  sizes: ModelConfig,
  caps: { readonly score: number | null; readonly logit: number | null },
  slides: (layer: number) => boolean,
) {
  const window = slidingWindow(config);
  if (window === null)
    throw new UserError(`${config.path}: sliding_window = null is not supported`, {
      hint: "the number of keys that a query of a sliding layer sees is needed",
    });
  const cap = (key: string, absent: number | null) =>
    config.has(key) ? config.positive(key) : config.isNull(key) ? null : absent;
  return {
    ...unbiased,
    ...attentionBias(config, false),
    scale: config.positive("query_pre_attn_scalar", 256) ** -0.5,
    scoreCap: cap("attn_logit_softcapping", caps.score),
    logitCap: cap("final_logit_softcapping", caps.logit),
    embeddingScale: Math.sqrt(sizes.hiddenSize),
    windows: layerWindows(config, sizes, window, slides),
  };
}

/** Of sliding and of other layers; only the latter are scaled. Newer files have an object for each kind of layer. */
export function gemmaRotary(config: ConfigReader, sizes: ModelConfig) {
  if (Object.keys(config.object("rope_parameters", {})).length > 0) {
    config.only("rope_scaling", null);
    const kinds = readerInside(config, "rope_parameters");
    const of = (key: string) => {
      const nested = readerInside(kinds, key);
      nested.positive("rope_theta");
      return readRotary(config, sizes, { nested });
    };
    const both = { sliding: of("sliding_attention"), full: of("full_attention") };
    kinds.refuseUnread();
    return both;
  }
  const full = readRotary(config, sizes, { theta: 1e6 });
  const theta = config.positive("rope_local_base_freq", 1e4);
  return { sliding: { ...full, theta, scaling: { type: "none" } as const }, full };
}

/** GPT-Neo's list of [kinds, times], [[["global", "local"], 12]] by default, as one kind for each layer. */
export function attentionKinds(config: ConfigReader, { numLayers }: ModelConfig) {
  const types = config.list("attention_types", [[["global", "local"], 12]]);
  const kinds = types.flatMap((item) => {
    const [names, times] = Array.isArray(item) ? (item as unknown[]) : [];
    const count = Number.isInteger(times) ? Math.min(Math.max(0, Number(times)), numLayers) : 0;
    return Array<unknown>(count).fill(names).flat();
  });
  const refusal = (key: string, problem: string) =>
    new UserError(`${config.path}: ${key}: ${problem}`, {
      hint: `as [[["global", "local"], 12]]: kinds, and how many times they follow; ${numLayers} in all`,
    });
  const isRight = kinds.every((kind) => kind === "global" || kind === "local");
  if (!isRight || kinds.length !== numLayers)
    throw refusal("attention_types", `${shown(types)} is not supported`);
  if (config.has("attention_layers") && config.list("attention_layers").join() !== kinds.join())
    throw refusal("attention_layers", "other kinds than attention_types says");
  return kinds;
}

export interface RotaryDefaults {
  /** Of each head that turns, where it may be another than 1. */
  readonly share?: number;
  readonly theta?: number;
  /** Names of types that mean others. */
  readonly synonyms?: Readonly<Record<string, string>>;
  /** The object that holds the settings; by default one of the config. */
  readonly nested?: ConfigReader;
}

/** The one of these objects of a config that counts, if any: `rope_scaling` before the newer one, as in transformers 5. */
function scalingObject(config: ConfigReader): ConfigReader {
  const isSet = (key: string) => Object.keys(config.object(key, {})).length > 0;
  const [key] = ["rope_scaling", "rope_parameters"].filter(isSet);
  return key ? readerInside(config, key) : configReader(config.path, {});
}

/** `rope_theta` and `rope_scaling`, or both inside `rope_parameters` in newer files. */
export function readRotary(
  config: ConfigReader,
  { headDim, maxPositions }: ModelConfig,
  { share, theta: base = 1e4, synonyms = {}, nested = scalingObject(config) }: RotaryDefaults = {},
): RotaryConfig {
  config.only("rope_interleaved", false);
  if (share === undefined)
    for (const reader of [config, nested]) reader.only("partial_rotary_factor", 1);
  const factor = config.number("partial_rotary_factor", share ?? 1);
  const rotaryDim = Math.floor(headDim * nested.number("partial_rotary_factor", factor));
  if (rotaryDim % 2 !== 0 || rotaryDim < 0 || rotaryDim > headDim)
    throw refusal(config, `${rotaryDim} rotary elements must be even, at most ${headDim}`);
  const theta = nested.positive("rope_theta", config.positive("rope_theta", base));
  const named = nested.text("rope_type", nested.text("type", "default"));
  const type = (Object.hasOwn(synonyms, named) && synonyms[named]) || named;
  if (!Object.hasOwn(scalings, type))
    throw unsupported(`${nested.path}: rope type "${type}"`, type, Object.keys(scalings));
  const ORIGINAL = "original_max_position_embeddings";
  const original = () => config.count(ORIGINAL, nested.count(ORIGINAL, maxPositions));
  const scaling = scalings[type]!(nested, { rotaryDim, theta, maxPositions, original });
  nested.refuseUnread();
  return { rotaryDim, theta, scaling };
}

interface Around extends Omit<RotaryConfig, "scaling"> {
  readonly maxPositions: number;
  /** Tokens of the windows before the scaling. */
  readonly original: () => number;
}

const refusal = ({ path }: ConfigReader, problem: string) => new UserError(`${path}: ${problem}`);

/** By type, from the object that names it and what is around that. */
const scalings: Readonly<Record<string, (own: ConfigReader, around: Around) => RotaryScaling>> = {
  default: () => ({ type: "none" }),
  linear: (own) => ({ type: "linear", factor: own.positive("factor") }),
  // Changes nothing within the trained length, and windows never exceed it.
  dynamic: (own) => {
    own.positive("factor", 1);
    return { type: "none" };
  },
  llama3: (own, { original }) => {
    const scaling = {
      type: "llama3",
      factor: own.positive("factor"),
      lowFrequencyFactor: own.number("low_freq_factor"),
      highFrequencyFactor: own.number("high_freq_factor"),
      originalMaxPositions: original(),
    } as const;
    if (scaling.highFrequencyFactor > scaling.lowFrequencyFactor) return scaling;
    throw refusal(own, "high_freq_factor must be above low_freq_factor");
  },
  // A stated factor counts, also where the lengths say another, as in transformers 5 and llama.cpp.
  yarn: (own, { theta, maxPositions, original }) => {
    const factor = own.positive("factor", maxPositions / original());
    const gain = factor > 1 ? 0.1 * Math.log(factor) + 1 : 1;
    const [fastTurns, slowTurns] = [own.positive("beta_fast", 32), own.positive("beta_slow", 1)];
    if (theta <= 1) throw refusal(own, `rope_theta must be above 1, found ${theta}`);
    if (fastTurns < slowTurns) throw refusal(own, "beta_fast must not be below beta_slow");
    return {
      type: "yarn",
      factor,
      fastTurns,
      slowTurns,
      originalMaxPositions: original(),
      gain: own.positive("attention_factor", gain),
    };
  },
  longrope: (own, { rotaryDim, maxPositions, original }) => {
    const pairs = rotaryDim / 2;
    const divisors = (key: string) => {
      const values = own.list(key).filter((x): x is number => Number.isFinite(x) && Number(x) > 0);
      if (values.length === pairs && own.list(key).length === pairs) return values;
      throw refusal(own, `"${key}" must be ${pairs} positive numbers`);
    };
    const factor = own.positive("factor", maxPositions / original());
    if (original() < 2) throw refusal(own, "the original length must be at least 2 tokens");
    const gain = factor > 1 ? Math.sqrt(1 + Math.log(factor) / Math.log(original())) : 1;
    return {
      type: "longrope",
      short: divisors("short_factor"),
      long: divisors("long_factor"),
      originalMaxPositions: original(),
      gain: own.positive("attention_factor", gain),
    };
  },
};
