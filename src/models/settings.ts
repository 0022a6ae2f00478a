// Settings that several families read alike, or that one says in a way of its own.

import { UserError } from "../core/errors.ts";
import { shown } from "../core/json.ts";
import { type ConfigReader, type ModelConfig, readerInside } from "./config.ts";
import { type Settings, unbiased } from "./family.ts";
import { readRotary } from "./rotary.ts";

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

/** Qwen's: where `use_sliding_window` says so, in the layers from `max_window_layers` on. */
export function laterWindows(config: ConfigReader, sizes: ModelConfig) {
  const size = slidingWindow(config);
  const window = config.flag("use_sliding_window", false) ? size : null;
  const first = config.number("max_window_layers", 28);
  return layerWindows(config, sizes, window, (layer) => layer >= first);
}

/** What Gemma 2 and 3 share; the caps are what their absence means, and null is none. */
export function gemma(
  config: ConfigReader,
  { hiddenSize }: ModelConfig,
  caps: { readonly score: number | null; readonly logit: number | null },
): Settings {
  const cap = (key: string, absent: number | null) =>
    config.has(key) ? config.positive(key) : config.isNull(key) ? null : absent;
  return {
    ...unbiased,
    ...attentionBias(config, false),
    scale: config.positive("query_pre_attn_scalar", 256) ** -0.5,
    scoreCap: cap("attn_logit_softcapping", caps.score),
    logitCap: cap("final_logit_softcapping", caps.logit),
    embeddingScale: Math.sqrt(hiddenSize),
  };
}

export function gemmaWindow(config: ConfigReader): number {
  const window = slidingWindow(config);
  if (window !== null) return window;
  throw new UserError(`${config.path}: sliding_window = null is not supported`, {
    hint: "the number of keys that a query of a sliding layer sees is needed",
  });
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
