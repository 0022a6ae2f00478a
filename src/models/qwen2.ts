// Qwen2 and 2.5 (Yang et al., 2024): Llama with biases on query, key and value, and sliding windows in the last layers.

import type { Family } from "./architecture.ts";
import { llama } from "./llama.ts";
import { readLastWindows, readLlama } from "./read-config.ts";

export const qwen2: Family = {
  ...llama,
  readConfig: (config) =>
    readLlama(config, {
      maxPositions: 32768,
      windows: readLastWindows(config),
      hasAttentionBias: true,
      hasOutputBias: false,
      hasMlpBias: false,
    }),
};
