// Mistral (Jiang et al., 2023): Llama with a sliding window in every layer, or none where it is null.

import type { Family } from "./architecture.ts";
import { llama, readLlama } from "./llama.ts";

export const mistral: Family = {
  ...llama,
  defaults: { ...llama.defaults, maxPositions: 131072 },
  readSettings: (config, sizes) => {
    const window = config.countOrNull("sliding_window", 4096);
    return {
      ...readLlama(config, sizes),
      windows: Array.from({ length: sizes.numLayers }, () => window),
      hasAttentionBias: false,
      hasOutputBias: false,
      hasMlpBias: false,
    };
  },
};
