// How much arithmetic a model needs: multiplications and additions of its matrix products, the rest being small.

import { sizeOf } from "../core/shape.ts";
import type { Window } from "../augmented/graph.ts";
import type { Model } from "../models/architecture.ts";

export interface Operations {
  /** One forward pass of a batch. */
  readonly forward: number;
  /** One step that trains temperatures: forward, and back through every frozen matrix. */
  readonly step: number;
  /** What recomputing whole blocks adds to a step. */
  readonly recompute: number;
}

/** Counts what causal attention needs, half a square per layer, though blocks of it compute a little more. */
export function countOperations(model: Model, { batchSize, context }: Window): Operations {
  const { numLayers, numHeads, headDim } = model.config;
  const { blocks, head } = matrixWeights(model);
  const perWeight = 2 * batchSize * context;
  const attention = 2 * batchSize * numLayers * numHeads * headDim * context ** 2;
  const forward = perWeight * (blocks + head) + attention;
  return {
    forward,
    // Each product has one gradient, that of its activations; attention's two products have two each.
    step: forward + perWeight * (blocks + head) + 2 * attention,
    recompute: perWeight * blocks + attention,
  };
}

/** Weights that every token is multiplied by: the matrices of the blocks, and the output embedding. */
export function matrixWeights(model: Model): { readonly blocks: number; readonly head: number } {
  const { weights, groupOf, inputEmbedding, outputEmbedding, config } = model;
  const head = sizeOf(weights.get(config.isTied ? inputEmbedding : outputEmbedding)!);
  let blocks = 0;
  for (const [name, shape] of weights) if (groupOf(name) === "matrices") blocks += sizeOf(shape);
  return { blocks, head };
}
