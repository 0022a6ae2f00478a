// Settings that several families read alike, or that one says in a way of its own.

import { UserError } from "../core/errors.ts";
import { shown } from "../core/json.ts";
import { type ConfigReader, type ModelConfig, readerInside } from "./config.ts";
import { type Settings, unbiased } from "./family.ts";
import { readRotary } from "./rotary.ts";
import { layerWindows, slidingWindow } from "./windows.ts";

export function attentionBias(config: ConfigReader, fallback: boolean) {
  const hasBias = config.flag("attention_bias", fallback);
  return { hasAttentionBias: hasBias, hasOutputBias: hasBias };
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
  const refusal = (key: string, problem: string) =>
    new UserError(`${config.path}: ${key}: ${problem}`, {
      hint: 'as [[["global", "local"], 12]]: kinds, and how many times they follow',
    });
  const wrong = (found: unknown) => refusal("attention_types", `${shown(found)} is not supported`);
  const kinds: string[] = [];
  for (const item of config.list("attention_types", [[["global", "local"], 12]])) {
    const [names, times] = Array.isArray(item) ? (item as unknown[]) : [];
    const isRight = Array.isArray(names) && Number.isInteger(times) && Number(times) > 0;
    if (!isRight || kinds.length + names.length * Number(times) > numLayers) throw wrong(item);
    for (let i = 0; i < Number(times); i++) kinds.push(...(names as string[]));
  }
  if (kinds.length !== numLayers)
    throw refusal("attention_types", `${kinds.length} kinds for ${numLayers} layers`);
  const other = kinds.find((kind) => kind !== "global" && kind !== "local");
  if (other !== undefined) throw wrong(other);
  if (config.has("attention_layers") && config.list("attention_layers").join() !== kinds.join())
    throw refusal("attention_layers", "other kinds than attention_types says");
  return kinds;
}
