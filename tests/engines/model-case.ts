// A fixture model with temperatures as a graph that can run: logits, loss, and the loss's gradient of every weight and
// temperature.

import { join } from "node:path";
import { boundWeights, buildForward, logitsOf } from "../../src/model/graph.ts";
import { openModel } from "../../src/model/open.ts";
import type { Feeds, Weight } from "../../src/engines/index.ts";
import { openSafetensors, readBytes, readFloats } from "../../src/files/safetensors.ts";
import { gradients } from "../../src/graph/autodiff.ts";
import { input, mul, reduceSum, reshape } from "../../src/graph/build.ts";
import { simplify, verify } from "../../src/graph/passes.ts";
import type { Outputs } from "../../src/graph/tensor.ts";
import { tokenScores } from "../../src/nn/loss.ts";

const fixtures = new URL("../fixtures/", import.meta.url).pathname;

export interface ModelCase {
  readonly outputs: Outputs;
  readonly weights: ReadonlyMap<string, Weight>;
  readonly feeds: Feeds;
}

/** `trained`: which weights and temperatures are inputs with a gradient; the others are bound. */
export async function modelCase(
  variant: string,
  trained: (name: string) => boolean,
  spec = "default",
): Promise<ModelCase> {
  const folder = join(fixtures, variant);
  const adapter = join(folder, "ssa", spec);
  const model = await openModel(folder, { adapter });
  const { tensors } = await openSafetensors(join(folder, "expected.safetensors"));
  const info = tensors.get("input_ids")!;
  const [batchSize, context] = info.shape as [number, number];
  const ids = new BigInt64Array((await readBytes(info)).buffer as ArrayBuffer);
  const temperatures = model.temperatures!.values;
  const names = [...model.weights.keys(), ...temperatures.keys()].filter(trained);

  const graph = buildForward(model, { batchSize, context }, { trainable: new Set(names) });
  const labels = input("labels", [batchSize, context], "I64");
  const shares = input("shares", [batchSize, context], "F32");
  const { nats, ranks } = tokenScores(
    graph.hidden,
    graph.head,
    labels,
    graph.tiling,
    graph.logitCap,
  );
  const loss = reshape(reduceSum(mul(nats, shares), [0, 1]), []);
  const grads = gradients(
    loss,
    names.map((name) => graph.trainable.get(name)!),
  );
  const outputs = simplify({
    logits: logitsOf(graph),
    loss,
    ranks,
    ...Object.fromEntries(grads.map((grad, i) => [`grad.${names[i]}`, grad])),
  });
  verify(outputs);

  const hasNext = (i: number) => (i + 1) % context !== 0;
  const numTargets = batchSize * (context - 1);
  const values = names.map(async (name) => {
    const value = temperatures.get(name) ?? (await readFloats(model.weights.get(name)!));
    return [name, value] as const;
  });
  return {
    outputs,
    weights: boundWeights(model),
    feeds: {
      ids,
      labels: ids.map((_, i) => (hasNext(i) ? ids[i + 1]! : 0n)),
      shares: Float32Array.from(ids, (_, i) => (hasNext(i) ? 1 / numTargets : 0)),
      ...Object.fromEntries(await Promise.all(values)),
    },
  };
}
