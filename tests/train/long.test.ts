// Long windows: blocks of rows computed again one after another give the gradients of the whole square, in memory that
// grows with the window and not with its square.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { openConfig, randomIds, writeRandomModel } from "../../bench/models.ts";
import { peakBytes } from "../../src/engines/counts.ts";
import { type Engine, openEngine } from "../../src/engines/index.ts";
import { runOrderOf } from "../../src/engines/onnx/order.ts";
import { isOp, type Outputs, topologicalOrder } from "../../src/graph/tensor.ts";
import { boundWeights } from "../../src/model/graph.ts";
import { openModel } from "../../src/model/open.ts";
import type { OpenedModel } from "../../src/model/opened.ts";
import { smallTiles, type Tiling } from "../../src/nn/tiling.ts";
import { buildTrainingGraph } from "../../src/train/step.ts";
import { withInitialValues } from "../../src/insertions/insertion.ts";
import { DEFAULT_TEMPERATURES } from "../../src/insertions/parts.ts";
import { temperatures } from "../../src/insertions/temperatures.ts";
import { createRandom } from "../../src/core/random.ts";
import { allClose, temporaryFolder } from "../helpers.ts";

const VOCABULARY = 96;
const llama = {
  model_type: "llama",
  num_hidden_layers: 2,
  hidden_size: 32,
  intermediate_size: 48,
  num_attention_heads: 4,
  num_key_value_heads: 2,
  vocab_size: VOCABULARY,
  max_position_embeddings: 32768,
  rms_norm_eps: 1e-5,
  rope_theta: 10000,
  tie_word_embeddings: true,
};
const shapes = {
  llama,
  // Norms behind attention and feed-forward layers, caps, and every other layer a window over blocks.
  gemma2: {
    ...llama,
    model_type: "gemma2",
    head_dim: 8,
    query_pre_attn_scalar: 8,
    sliding_window: 150,
    attn_logit_softcapping: 30,
    final_logit_softcapping: 20,
    hidden_activation: "gelu_pytorch_tanh",
  },
};

let engine: Engine;
before(async () => (engine = await openEngine("cpu", { threads: 1 })));
after(() => engine.dispose());

const unblocked: Tiling = { ...smallTiles, queryRows: () => Infinity, mlpRows: () => Infinity };
/** So that 16 blocks and more are short; the last of each is shorter still. */
const blocked: Tiling = {
  ...smallTiles,
  queryRows: () => 64,
  mlpRows: () => 500,
};
const LENGTH = 1100;

/** With temperatures that are not zero. */
async function open(folder: string): Promise<OpenedModel> {
  const base = await openModel(folder);
  const { query } = DEFAULT_TEMPERATURES;
  const insertion = temperatures.of({ ...DEFAULT_TEMPERATURES, key: query });
  const opened = withInitialValues(insertion, base.model, createRandom(0));
  let count = 0;
  for (const values of opened.values.values())
    for (let i = 0; i < values.length; i++) values[i] = 0.2 * Math.sin(count++);
  return { ...base, temperatures: opened };
}

type Values = Readonly<Record<string, Float32Array>>;

async function run(opened: OpenedModel, outputs: Outputs, values: Values, isPacked = false) {
  const program = await engine.compile(outputs, boundWeights(opened));
  const ids = BigInt64Array.from(randomIds(LENGTH, VOCABULARY), BigInt);
  const results = await program.run({
    ...values,
    ids,
    labels: ids.map((id) => (3n * id + 1n) % BigInt(VOCABULARY)),
    weights: new Float32Array(LENGTH).fill(1),
    ...(isPacked && { positions: BigInt64Array.from(ids, (_, i) => BigInt(i % 700)) }),
  });
  const copies = Object.entries(results).map(([name, x]) => [name, x.slice()] as const);
  await program.dispose();
  return Object.fromEntries(copies);
}

for (const [name, config] of Object.entries(shapes))
  for (const isPacked of name === "llama" ? [false, true] : [false])
    test(`${name}${isPacked ? ", packed" : ""}: as the whole square at once`, async (t) => {
      const folder = await temporaryFolder(t);
      await writeRandomModel(folder, config);
      const opened = await open(folder);
      const values = Object.fromEntries(opened.temperatures!.values);
      const names = Object.keys(values);
      const window = { batchSize: 1, context: LENGTH, isPacked };
      const graphOf = (options: Parameters<typeof buildTrainingGraph>[3]) =>
        buildTrainingGraph(opened, window, names, options);
      const whole = graphOf({ recompute: "nothing", tiling: unblocked });
      const expected = await run(opened, whole, values, isPacked);
      for (const recompute of ["cheap", "blocks"] as const) {
        const graph = graphOf({ recompute, tiling: blocked });
        for (const [name, own] of Object.entries(await run(opened, graph, values, isPacked))) {
          const largest = expected[name]!.reduce((max, x) => Math.max(max, Math.abs(x)), 0);
          allClose(own, expected[name]!, { atol: 3e-6 * largest });
        }
      }
      if (isPacked) return;
      // Along the gradient the loss grows by its square, by central differences.
      const { nats } = graphOf({ tiling: blocked });
      const square = names.reduce(
        (sum, name) => sum + expected[`grad.${name}`]!.reduce((all, x) => all + x * x, 0),
        0,
      );
      const moved = async (by: number) => {
        const at = names.map((name) => {
          const slope = expected[`grad.${name}`]!;
          return [name, values[name]!.map((x, i) => x + (by * slope[i]!) / Math.sqrt(square))];
        });
        const scored = await run(opened, { nats: nats! }, Object.fromEntries(at) as Values);
        return scored["nats"]!.reduce((sum, x) => sum + x, 0);
      };
      const slope = ((await moved(0.02)) - (await moved(-0.02))) / 0.04;
      allClose([slope], [Math.sqrt(square)], { rtol: 5e-3 });
    });

test("memory and nodes grow as the window does, under sliding windows by what they see", async (t) => {
  const folder = await temporaryFolder(t);
  const sizeOf = async (context: number, config: Readonly<Record<string, unknown>>) => {
    const opened = await openConfig(folder, { ...config, num_attention_heads: 4 }, "F32");
    const names = [...opened.temperatures!.values.keys()];
    const graph = buildTrainingGraph(opened, { batchSize: 1, context }, names);
    const order = runOrderOf(graph);
    const widths = topologicalOrder(Object.values(graph)).filter((x) => isOp(x, "Softmax"));
    const widest = widths.reduce((most, { shape }) => Math.max(most, Number(shape[3] ?? 0)), 0);
    return {
      bytes: peakBytes(order, graph, { overwrites: true, castBytes: 0 }),
      nodes: order.length,
      widest,
    };
  };
  const [short, long] = [await sizeOf(4096, llama), await sizeOf(8192, llama)];
  assert.ok(long.bytes < 2.05 * short.bytes, `${long.bytes} of ${short.bytes} bytes`);
  assert.ok(long.nodes < 2.05 * short.nodes, `${long.nodes} of ${short.nodes} nodes`);
  const mistral = { ...llama, model_type: "mistral", sliding_window: 300 };
  assert.equal((await sizeOf(4096, mistral)).widest, 128 + 300 - 1);
});
