// What a step that trains temperatures costs: arithmetic and memory traffic as functions of the model and the window
// (docs/scaling.md). Time = operations / rate of matrix products + bytes / bandwidth.

import type { BatchShape } from "../src/data/windows.ts";
import { sizeOf } from "../src/core/shape.ts";
import type { Model } from "../src/models/index.ts";
import { smallTiles } from "../src/nn/tiling.ts";
import { bytesOf } from "../src/engines/counts.ts";
import type { OpType } from "../src/graph/ops.ts";
import { isOp, type Outputs, topologicalOrder } from "../src/graph/tensor.ts";

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
export function stepCost(model: Model, { batchSize, context }: BatchShape): Cost {
  const { numLayers, numHeads, headDim, hiddenSize, vocabSize, ...config } = model.config;
  const tokens = batchSize * context;
  const rowBlocks = Math.ceil(context / smallTiles.queryRows(context));
  /** Keys that a row computes (some in vain: a block's rows see those of its last), and blocks of rows that see a key, on average. */
  const [keys, blocksOfKey] = [(context * (1 + 1 / rowBlocks)) / 2, (rowBlocks + 1) / 2];
  const keyValueSize = config.numKeyValueHeads * headDim;

  // Forward and back through each frozen matrix; attention's two products have two gradients each, and the first of
  // them, the logits, is computed again.
  const attention = 7 * numLayers * numHeads * headDim * keys;
  const operations = 2 * tokens * (2 * matrixWeights(model) + attention);

  const floatsOfLayer =
    FLOATS.hidden * hiddenSize +
    (FLOATS.keyValue + FLOATS.keyValueOfBlock * blocksOfKey) * keyValueSize +
    FLOATS.intermediate * config.intermediateSize +
    FLOATS.attention * numHeads * keys;
  const floats = tokens * (numLayers * floatsOfLayer + FLOATS.vocabulary * vocabSize);
  return { operations, bytes: 4 * floats };
}

/**
 * The same for what causal attention needs alone, half a square a layer, and nothing computed twice: what a share of the
 * machine's rate is of.
 */
export function neededOperations(model: Model, { batchSize, context }: BatchShape) {
  const { numLayers, numHeads, headDim } = model.config;
  const attention = 2 * batchSize * numLayers * numHeads * headDim * context ** 2;
  const forward = 2 * batchSize * context * matrixWeights(model) + attention;
  // Each product has one gradient, that of its activations; attention's two products have two each.
  return { eval: forward, step: 2 * forward + attention };
}

/** Weights that every token is multiplied by: all matrices, and the output embedding. */
function matrixWeights({ weights, groupOf, inputEmbedding, outputEmbedding, config }: Model) {
  let count = sizeOf(weights.get(config.isTied ? inputEmbedding : outputEmbedding)!);
  for (const [name, shape] of weights) if (groupOf(name) === "matrices") count += sizeOf(shape);
  return count;
}

/** Ops that read and write nothing, and those that read of their operands only what they take. */
const NO_TRAFFIC: readonly OpType[] = ["Input", "Parameter", "Constant", "Reshape"];
const TAKING: readonly OpType[] = ["Slice", "Gather"];

/** The same, counted from a graph's nodes. */
export function costOf(outputs: Outputs): Cost {
  let [operations, bytes] = [0, 0];
  for (const tensor of topologicalOrder(Object.values(outputs))) {
    const { op, inputs, shape } = tensor;
    if (isOp(tensor, "MatMul")) {
      const inner = Number(inputs[0]!.shape.at(tensor.attributes.transposeA ? -2 : -1));
      operations += 2 * sizeOf(shape) * inner;
    } else if (!NO_TRAFFIC.includes(op)) {
      const arrays = [tensor, ...(TAKING.includes(op) ? [tensor] : inputs)];
      bytes += arrays.reduce((sum, array) => sum + bytesOf(array), 0);
    }
  }
  return { operations, bytes };
}
