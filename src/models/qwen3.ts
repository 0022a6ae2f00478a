// Qwen3 (Yang et al., 2025): Llama with an RMS norm of each head's query and key, and sliding windows in the last layers.

import type { Family } from "./architecture.ts";
import { llama } from "./llama.ts";
import { readLastWindows, readLlama } from "./read-config.ts";

export const qwen3: Family = {
  ...llama,
  attention: { ...llama.attention, headNorms: ["q_norm", "k_norm"] },
  readConfig: (config) => {
    const hasBias = config.flag("attention_bias", false);
    return readLlama(config, {
      headDim: 128,
      maxPositions: 32768,
      windows: readLastWindows(config),
      hasAttentionBias: hasBias,
      hasOutputBias: hasBias,
      hasMlpBias: false,
    });
  },
};
