// Weights that others have quantised: a Llama as NumPy packs it for GPTQ, AWQ and MLX, and multiplied out.

import assert from "node:assert/strict";
import { readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { test, type TestContext } from "node:test";
import { randomIds } from "../../bench/models.ts";
import { UserError } from "../../src/core/errors.ts";
import { openSafetensors, readBytes, writeSafetensors } from "../../src/files/safetensors.ts";
import type { TensorSource } from "../../src/files/safetensors.ts";
import { isBlocked } from "../../src/model/blocks.ts";
import { openModel } from "../../src/model/open.ts";
import { withBlocks } from "../../src/model/quantize.ts";
import { floatsOf } from "../../src/model/weights.ts";
import { fixtures } from "../fixtures/variants.ts";
import { allClose, temporaryFolder } from "../helpers.ts";
import { asOnCuda, byParts, cpu, tfjs } from "./engines.ts";
import { logits } from "./logits.ts";

const folderOf = (name: string) => join(fixtures, "packed", name);
const plain = await openModel(folderOf("plain"));
const ids = randomIds(32, 48);
const expected = await logits(cpu, plain, ids, 2);

const shapes = {
  gptq: "GPTQ, q4, blocks of 32",
  "gptq-8": "GPTQ, q8, blocks of 32",
  awq: "AWQ, q4, blocks of 32",
  mlx: "MLX, q4, blocks of 32",
};
for (const name of Object.keys(shapes))
  test(`${name}: the weights are those that NumPy packed, the logits those of the model multiplied out`, async (t) => {
    const notes: string[] = [];
    const places = {
      cacheDir: await temporaryFolder(t),
      onNote: (note: string) => notes.push(note),
    };
    const opened = await withBlocks(await openModel(folderOf(name)), null, places);
    assert.equal([...opened.weights.values()].filter(isBlocked).length, name === "mlx" ? 9 : 7);
    for (const [weight, info] of plain.weights)
      assert.deepEqual(await floatsOf(opened.weights.get(weight)!), await floatsOf(info), weight);
    for (const engine of [cpu, byParts, asOnCuda, tfjs])
      allClose(await logits(engine, opened, ids, 2), expected, { atol: 1e-6, rtol: 1e-6 });
    await withBlocks(await openModel(folderOf(name)), null, places);
    assert.deepEqual(notes.length, 1, "laid out once");
  });

/** A copy with other words in its config, and other tensors. */
async function edited(t: TestContext, name: string, config: object, change: Change = () => {}) {
  const folder = await temporaryFolder(t);
  const from = folderOf(name);
  const json = JSON.parse(await readFile(join(from, "config.json"), "utf8")) as object;
  await writeFile(join(folder, "config.json"), JSON.stringify({ ...json, ...config }));
  const sources = new Map<string, TensorSource>();
  for (const [tensor, info] of (await openSafetensors(from)).tensors)
    sources.set(tensor, { ...info, dtype: info.dtype as "F16", data: await readBytes(info) });
  change(sources);
  await writeSafetensors(join(folder, "model.safetensors"), [...sources.values()]);
  return folder;
}
type Change = (tensors: Map<string, TensorSource>) => void;

const quantization = { quant_method: "gptq", bits: 4, group_size: 32 };
const query = "model.layers.0.self_attn.q_proj";
const halves = (bytes: TensorSource) => new Uint16Array((bytes.data as Uint8Array).buffer);

test("what is not read is refused in a sentence that says what to do", async (t) => {
  const refusals: readonly (readonly [object, RegExp, Change?])[] = [
    [
      { quant_method: "bitsandbytes" },
      /quantised weights of quant_method "bitsandbytes" are not read; those of GPTQ, AWQ, MLX are/,
    ],
    [{ quant_method: "fp8" }, /of quant_method "fp8" are not read/],
    [{ ...quantization, bits: 3 }, /is said to have 3 bits; GPTQ is read with 4 and 8/],
    [
      { ...quantization, checkpoint_format: "marlin" },
      /the checkpoint_format "marlin" are not read/,
    ],
    [{ ...quantization, bits: 8 }, /has 12 x 64 words of 8 bits, with other scales or qzeros/],
    [quantization, /q_proj has no qzeros/, (tensors) => void tensors.delete(`${query}.qzeros`)],
    [
      quantization,
      /unexpected: .*q_proj\.bias/,
      (tensors) => void (halves(tensors.get(`${query}.bias`)!)[3] = 0x3c00),
    ],
  ];
  for (const [quantization_config, message, change] of refusals) {
    const folder = await edited(t, "gptq", { quantization_config }, change);
    await assert.rejects(openModel(folder), (error: Error) => {
      assert.match(error.message, message);
      return error instanceof UserError;
    });
  }
  for (const name of ["gptq", "awq"]) {
    const shape = {
      n_embd: 64,
      n_head: 2,
      n_layer: 1,
      n_positions: 64,
      vocab_size: 48,
      rope_theta: undefined,
    };
    const folder = await edited(t, name, { model_type: "gpt2", ...shape });
    await assert.rejects(openModel(folder), (error: UserError) => {
      assert.match(error.message, /is of GPT-2, whose matrices lie the other way round/);
      return /take the checkpoint that it was quantised from/.test(error.hint!);
    });
  }
  const spread = await edited(t, "gptq", {}, (tensors) => {
    const group = new Int32Array((tensors.get(`${query}.g_idx`)!.data as Uint8Array).buffer);
    group.reverse();
  });
  const cacheDir = await temporaryFolder(t);
  await assert.rejects(withBlocks(await openModel(spread), null, { cacheDir }), /is of act-order/);
  const opened = await openModel(folderOf("awq"));
  const q4 = { bits: 4, block: 32, head: false } as const;
  await assert.rejects(withBlocks(opened, q4, { cacheDir }), /is quantised already: AWQ, q4/);
});
