// Qwen2 and 2.5 (Yang et al., 2024): Llama with biases on query, key and value, and sliding windows in the last layers.

import { UserError } from "../core/errors.ts";
import type { Family } from "./architecture.ts";
import type { ConfigReader } from "./config.ts";
import { llama, readLlama } from "./llama.ts";

export const qwen2: Family = {
  ...llama,
  defaults: { ...llama.defaults, maxPositions: 32768 },
  readSettings: (config, sizes) => ({
    ...readLlama(config, sizes),
    windows: readWindows(config, sizes.numLayers),
    hasAttentionBias: true,
    hasOutputBias: false,
    hasMlpBias: false,
  }),
};

/** Where `use_sliding_window` says so, the layers that `layer_types` lists, or those from `max_window_layers` on. */
export function readWindows(config: ConfigReader, numLayers: number): (number | null)[] {
  const size = config.countOrNull("sliding_window", 4096);
  const window = config.flag("use_sliding_window", false) ? size : null;
  const first = config.number("max_window_layers", 28);
  const types = config.list("layer_types");
  if (types && types.length !== numLayers)
    throw new UserError(`${config.path}: ${types.length} layer_types for ${numLayers} layers`);
  return Array.from({ length: numLayers }, (_, layer) => {
    if (!types) return layer < first ? null : window;
    if (types[layer] === "full_attention") return null;
    if (types[layer] === "sliding_attention" && window) return window;
    throw new UserError(`${config.path}: layer_types: "${String(types[layer])}" is not supported`, {
      hint: `supported: full_attention, and sliding_attention where use_sliding_window is true`,
    });
  });
}
