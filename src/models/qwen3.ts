// Qwen3 (Yang et al., 2025): Llama with a norm of each head's query and key, and sliding windows in the last layers.

import type { Family } from "./architecture.ts";
import { readLlama } from "./llama.ts";
import { qwen2, readWindows } from "./qwen2.ts";

export const qwen3: Family = {
  ...qwen2,
  attention: { ...qwen2.attention, headNorms: ["q_norm", "k_norm"] },
  headDim: 128,
  readSettings: (config, sizes) => ({
    ...readLlama(config, sizes),
    windows: readWindows(config, sizes.numLayers),
    hasMlpBias: false,
  }),
};
