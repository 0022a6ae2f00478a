// Blocks of GGUF files as a run has them: the values that ggml's formats say, on every engine, in about the file's size.

import assert from "node:assert/strict";
import { stat } from "node:fs/promises";
import { join } from "node:path";
import { test, type TestContext } from "node:test";
import { randomIds, writeRandomModel } from "../../bench/models.ts";
import { blockFormat, decodeBlocks } from "../../src/files/gguf-blocks.ts";
import { describeQuantization, isBlocked } from "../../src/model/blocks.ts";
import { openModel } from "../../src/model/open.ts";
import { opening, placesOf } from "../../src/model/places.ts";
import { withBlocks } from "../../src/model/quantize.ts";
import { floatsOf } from "../../src/model/weights.ts";
import { allClose, sharedFolder, temporaryFolder } from "../helpers.ts";
import { convert } from "../llama-cpp/convert.ts";
import { type Quantised, randomBlocks, writeRandomBlocks } from "../llama-cpp/random-blocks.ts";
import { asOnCuda, byParts, cpu, tfjs } from "./engines.ts";
import { logits } from "./logits.ts";

const ids = randomIds(8, 48);

/** Heads of a size of their own, and rows of whole blocks of every format. */
const llama = {
  model_type: "llama",
  num_hidden_layers: 1,
  hidden_size: 256,
  intermediate_size: 256,
  num_attention_heads: 4,
  num_key_value_heads: 2,
  vocab_size: 48,
  max_position_embeddings: 64,
  rms_norm_eps: 1e-5,
  tie_word_embeddings: false,
};

const model = sharedFolder();
await writeRandomModel(model, llama);

async function opened(t: TestContext, formatOf: (name: string) => Quantised | undefined) {
  const folder = await temporaryFolder(t);
  const paths = [join(folder, "blocks.gguf"), join(folder, "f32.gguf")] as const;
  await writeRandomBlocks(model, paths, formatOf);
  const notes: string[] = [];
  const onNote = (note: string) => notes.push(note);
  const places = placesOf({ cacheDir: join(folder, "cache"), onNote });
  const open = async (path: string) =>
    withBlocks(await openModel(path, opening(places)), null, places);
  const [blocks, plain] = [await open(paths[0]), await open(paths[1])];
  assert.equal(notes.length, 2, "each is laid out once");
  return { blocks, plain, paths, places };
}

/** What files call them: Q4_K_M has values and half of the down projections in Q6_K, and the head. */
const mixed = (name: string): Quantised => (/attn_v|ffn_down|^output/.test(name) ? "Q6_K" : "Q4_K");
const files: Readonly<Record<string, readonly [typeof mixed, bitsPerWeight: number]>> = {
  "Q4_K and Q6_K": [mixed, 7.9],
  "Q4_0 and Q6_K": [(name) => (name === "output.weight" ? "Q6_K" : "Q4_0"), 5.3],
  Q5_0: [() => "Q5_0", 8.6],
  Q5_K: [() => "Q5_K", 10.1],
  Q8_0: [() => "Q8_0", 8.6],
};
for (const [formats, [formatOf, most]] of Object.entries(files))
  test(`${formats}: weights and logits are those of the file multiplied out`, async (t) => {
    const { blocks, plain, places, paths } = await opened(t, formatOf);
    assert.equal(describeQuantization(blocks.quantized!.spec), `GGUF, ${formats}`);
    assert.equal([...blocks.weights.values()].filter(isBlocked).length, 9);
    // 8 factors in a bias of Q4_K are exact here, for d and dmin are of like size.
    for (const [name, info] of plain.weights)
      allClose(await floatsOf(blocks.weights.get(name)!), await floatsOf(info));
    assert.equal(plain.quantized, undefined);
    const expected = await logits(cpu, plain, ids);
    for (const engine of formatOf === mixed ? [cpu, byParts, asOnCuda, tfjs] : [cpu, asOnCuda])
      allClose(await logits(engine, blocks, ids), expected, { atol: 2e-5, rtol: 1e-5 });

    const { size } = await stat(blocks.checkpoint.files[0]!);
    const numWeights = [...plain.weights.values()].reduce((sum, w) => sum + w.byteLength / 4, 0);
    assert.ok((8 * size) / numWeights < most, `${(8 * size) / numWeights} bits a weight`);
    const q4 = { bits: 4, block: 32, head: false } as const;
    const refused = new RegExp(`blocks\\.gguf is quantised already: GGUF, ${formats}$`);
    await assert.rejects(
      withBlocks(await openModel(paths[0], opening(places)), q4, places),
      ({ message }: Error) => refused.test(message),
    );
  });

test("4 bits with a bias are the same to 1e-6 of a block, whatever its least value", async (t) => {
  const folder = await temporaryFolder(t);
  const format = blockFormat("Q4_K")!;
  for (const unlike of [1e-3, 0.1, 30, 3000]) {
    const path = join(folder, `${unlike}.gguf`);
    const stored = randomBlocks("Q4_K", 256 * 256, 5, unlike);
    await convert(model, path, {}, (name, tensor) =>
      name === "blk.0.attn_output.weight" ? { ...tensor, data: stored, type: 12 } : tensor,
    );
    const { weights } = await openModel(path, opening(placesOf({ cacheDir: folder })));
    const found = await floatsOf(weights.get("model.layers.0.self_attn.o_proj.weight")!);
    const expected = decodeBlocks(format, stored);
    for (let i = 0; i < found.length; i += format.block) {
      const [own, theirs] = [found, expected].map((values) => values.subarray(i, i + format.block));
      const largest = Math.max(...theirs!.map(Math.abs));
      allClose(own!, theirs!, { atol: 1e-6 * largest });
    }
  }
});

test("GPT-2's file is a plain base, for its rows are not the blocks'", async (t) => {
  const folder = await temporaryFolder(t);
  const sizes = {
    n_layer: 1,
    n_head: 4,
    n_embd: 256,
    n_positions: 64,
    vocab_size: 48,
    layer_norm_epsilon: 1e-5,
  };
  await writeRandomModel(folder, { model_type: "gpt2", ...sizes });
  const paths = [join(folder, "blocks.gguf"), join(folder, "f32.gguf")] as const;
  await writeRandomBlocks(folder, paths, (name) => (name.startsWith("blk") ? "Q4_K" : undefined));
  const places = placesOf({ cacheDir: join(folder, "cache") });
  const [own, plain] = await Promise.all(paths.map((path) => openModel(path, opening(places))));
  assert.equal(own!.quantized, undefined);
  for (const [name, info] of plain!.weights)
    assert.deepEqual(await floatsOf(own!.weights.get(name)!), await floatsOf(info), name);
});
