// Mistral (Jiang et al., 2023): Llama with a sliding window in every layer, or none where it is null.

import type { Family } from "./architecture.ts";
import { llama } from "./llama.ts";
import { KEYS, readLlama } from "./read-config.ts";

export const mistral: Family = {
  ...llama,
  readConfig: (config) => {
    config.only("layer_types", null);
    const window = config.countOrNull("sliding_window", 4096);
    return readLlama(config, {
      maxPositions: 131072,
      windows: Array.from({ length: config.count(KEYS.numLayers) }, () => window),
      hasAttentionBias: false,
      hasOutputBias: false,
      hasMlpBias: false,
    });
  },
};
