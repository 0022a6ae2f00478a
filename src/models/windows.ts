// What config.json says of sliding windows.

import { UserError } from "../core/errors.ts";
import { shown } from "../core/json.ts";
import type { ConfigReader, ModelConfig } from "./config.ts";

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
