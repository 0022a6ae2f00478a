// What a step that trains temperatures costs: arithmetic and memory traffic as functions of the model and the window
// (docs/scaling.md). Time = operations / rate of matrix products + bytes / bandwidth.

import type { Window } from "../src/augmented/graph.ts";
import type { Model } from "../src/models/index.ts";
import { BLOCK_ROWS } from "../src/nn/attention.ts";
import { matrixWeights } from "../src/train/operations.ts";

export interface Cost {
  /** Multiplications and additions of the matrix products. */
  readonly operations: number;
  /** Read and written by everything else: elementwise passes, reductions, copies. */
  readonly bytes: number;
}

/**
 * Floats read and written for a token, besides products; fitted to the graphs of fourteen shapes of GPT-2 and Llama,
 * whose own counts they meet within 0.7 % (tests/bench/cost.test.ts holds others against them).
 */
const FLOATS = {
  /** Per layer and unit of the hidden size: normalization, residual stream, queries, temperatures. */
  hidden: 138,
  /** Per layer and unit of keys and values. */
  keyValue: 59,
  /** The same for each block that sees them. */
  keyValueOfBlock: 20.6,
  /** Per layer and unit of the MLP: the activation and its gradient. */
  intermediate: 36.6,
  /** Per attention weight. */
  attention: 17.3,
  /** Per entry of the vocabulary: softmax and its gradient. */
  vocabulary: 3,
};

/** Of one step in F32 that recomputes what is cheap. */
export function stepCost(model: Model, { batchSize, context }: Window): Cost {
  const { numLayers, numHeads, headDim, hiddenSize, vocabSize, ...config } = model.config;
  const tokens = batchSize * context;
  const rowBlocks = Math.ceil(context / BLOCK_ROWS);
  /** Keys that a row computes (some in vain: a block's rows see those of its last), and blocks of rows that see a key, on average. */
  const [keys, blocksOfKey] = [(context * (1 + 1 / rowBlocks)) / 2, (rowBlocks + 1) / 2];
  const keyValueSize = config.numKeyValueHeads * headDim;

  // Forward and back through each frozen matrix; attention's two products have two gradients each, and the first of
  // them, the logits, is computed again.
  const attention = 7 * numLayers * numHeads * headDim * keys;
  const { blocks: matrices, head } = matrixWeights(model);
  const operations = 2 * tokens * (2 * (matrices + head) + attention);

  const floatsOfLayer =
    FLOATS.hidden * hiddenSize +
    (FLOATS.keyValue + FLOATS.keyValueOfBlock * blocksOfKey) * keyValueSize +
    FLOATS.intermediate * config.intermediateSize +
    FLOATS.attention * numHeads * keys;
  const floats = tokens * (numLayers * floatsOfLayer + FLOATS.vocabulary * vocabSize);
  return { operations, bytes: 4 * floats };
}
