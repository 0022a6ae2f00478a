// A model's logits, once: what tests of insertions, folds and exports compare.

import type { Engine } from "../../src/engines/index.ts";
import { simplify } from "../../src/graph/passes.ts";
import { boundWeights, buildForward, logitsOf } from "../../src/model/graph.ts";
import type { OpenedModel } from "../../src/model/opened.ts";

/** Logits of `batchSize` windows of equal length, which `ids` holds one after the other: [windows, tokens, vocabulary]. */
export async function logits(
  engine: Engine,
  opened: OpenedModel,
  ids: ArrayLike<number | bigint>,
  batchSize = 1,
): Promise<Float32Array> {
  const graph = buildForward(opened, { batchSize, context: ids.length / batchSize });
  const program = await engine.compile(simplify({ logits: logitsOf(graph) }), boundWeights(opened));
  const results = await program.run({ ids: BigInt64Array.from(ids, BigInt) });
  const values = results["logits"]!.slice();
  await program.dispose();
  return values;
}

export const largestDifference = (a: Float32Array, b: Float32Array) =>
  a.reduce((largest, value, i) => Math.max(largest, Math.abs(value - b[i]!)), 0);
