// A run on a quantised base: what is reported, what final/ holds, and that it is what `eval` measures again.

import assert from "node:assert/strict";
import { mkdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import { test } from "node:test";
import { writeRandomModel } from "../../bench/models.ts";
import { UserError } from "../../src/core/errors.ts";
import { convert } from "../../src/export/convert.ts";
import { cachedExport } from "../../src/generate/generate.ts";
import { openSafetensors, readBytes, readFloats } from "../../src/files/safetensors.ts";
import { openModel } from "../../src/model/open.ts";
import { opening, placesOf } from "../../src/model/places.ts";
import { evaluate, type EvaluateModelOptions } from "../../src/run/evaluate.ts";
import { fineTune } from "../../src/run/fine-tune.ts";
import { fixtures } from "../fixtures/variants.ts";
import { allClose, temporaryFolder } from "../helpers.ts";
import { writeRandomBlocks } from "../llama-cpp/random-blocks.ts";
import { smallRecipe, writeTokens } from "./small-run.ts";

const config = { model_type: "gpt2", n_layer: 1, n_head: 2, n_embd: 32, n_positions: 64 };
const quantized = { bits: 4, block: 32, head: false };

test("before, after and delta are of the quantised base, beside what it was", async (t) => {
  const [root, base] = [await temporaryFolder(t), await temporaryFolder(t)];
  await writeRandomModel(base, { ...config, vocab_size: 37 }, "F32");
  const data = await writeTokens(join(root, "data"));
  const cacheDir = join(root, "cache");
  const where = { cacheDir, device: "cpu", threads: 1 } as const;
  const run = (name: string, more: object) =>
    fineTune({
      base,
      data,
      ...smallRecipe,
      ...where,
      quantize: "q4",
      out: join(root, name),
      ...more,
    });
  const adapter = await run("adapter", { tune: ["temperatures", "lora"], final: "adapter" });
  const score = (options: Partial<EvaluateModelOptions<"perplexity">>) =>
    evaluate({ model: base, data: join(data, "val.bin"), ...where, ...options });
  const [plain, blocks] = [await score({}), await score({ quantize: "q4" })];
  const { original: unquantized, ...spec } = adapter.quantized!;
  assert.deepEqual(spec, quantized);
  assert.equal(unquantized?.lossNats, plain.lossNats);
  assert.equal(adapter.before.lossNats, blocks.lossNats);
  assert.notEqual(plain.lossNats, blocks.lossNats);
  assert.deepEqual([adapter.before.quantized, adapter.after.quantized], [quantized, quantized]);
  const { after, before, delta } = adapter;
  assert.ok(Math.abs(delta.lossNats - (after.lossNats - before.lossNats)) < 1e-12);
  assert.ok(delta.lossNats < 0);
  const notes: string[] = [];
  const put = {
    adapter: join(root, "adapter", "final"),
    onNote: (note: string) => notes.push(note),
  };
  const again = await score({ quantize: "q4", ...put });
  assert.equal(again.lossNats, after.lossNats);
  assert.doesNotMatch(notes.join(), /was trained on its base/);
  await score(put);
  const told =
    /was trained on its base with --quantize q4 --quantize-block 32, here it is on --quantize none/;
  assert.match(notes.join(), told);

  // A model's folder has the original's matrices with what was trained.
  const model = await run("model", { tune: ["temperatures", "norms"] });
  assert.ok(model.delta.lossNats < 0);
  const [from, to] = [
    await openSafetensors(base),
    await openSafetensors(join(root, "model/final")),
  ];
  const name = "transformer.h.0.mlp.c_fc.weight";
  const [original, written] = [from, to].map(({ tensors }) => readBytes(tensors.get(name)!));
  assert.deepEqual(await written, await original);
  const rescored = await score({ quantize: "q4", model: join(root, "model", "final") });
  assert.equal(rescored.lossNats, model.after.lossNats);
  assert.equal(rescored.modelSha256, model.after.modelSha256);
  assert.match(await readFile(join(root, "model", "recipe.yaml"), "utf8"), /^quantize: q4$/m);
});

test("what others have quantised trains, is put on again, and is written multiplied out", async (t) => {
  const root = await temporaryFolder(t);
  const base = join(fixtures, "packed", "gptq");
  const data = await writeTokens(join(root, "data"));
  const where = { cacheDir: join(root, "cache"), device: "cpu", threads: 1 } as const;
  const of = { base, data, ...smallRecipe, ...where, tune: ["temperatures", "lora"] as const };
  const adapter = await fineTune({ ...of, final: "adapter", out: join(root, "adapter") });
  const spec = { bits: 4, block: 32, head: false, method: "gptq" };
  assert.deepEqual(adapter.quantized, { ...spec, original: null });
  assert.ok(adapter.delta.lossNats < 0);
  const val = join(data, "val.bin");
  const put = { adapter: join(root, "adapter", "final"), data: val, ...where };
  const again = await evaluate({ model: base, ...put });
  assert.equal(again.lossNats, adapter.after.lossNats);
  assert.equal(again.modelSha256, adapter.before.modelSha256);

  // MLX's are the same values, with embeddings in blocks as well.
  const mlx = { base: join(fixtures, "packed", "mlx"), out: join(root, "mlx") };
  const same = await fineTune({ ...of, final: "adapter", ...mlx });
  assert.ok(Math.abs(same.after.lossNats - adapter.after.lossNats) < 1e-6);

  const model = await fineTune({ ...of, final: "model", out: join(root, "model") });
  assert.equal(model.after.lossNats, adapter.after.lossNats);
  const written = await evaluate({ model: join(root, "model", "final"), data: val, ...where });
  assert.ok(Math.abs(written.lossNats - model.after.lossNats) < 1e-3, "rounded to half precision");

  await assert.rejects(
    fineTune({ ...of, tune: ["all"], out: join(root, "all") }),
    (error: Error) => {
      assert.match(error.message, /^tune: all trains matrices, which .* has only frozen: GPTQ, q4/);
      return error instanceof UserError;
    },
  );
  const plain = await openModel(join(fixtures, "packed", "plain"));
  for (const target of ["safetensors", "onnx"] as const) {
    const out = join(root, target);
    const { notes } = await convert({ model: base, target, out, cacheDir: where.cacheDir });
    assert.match(
      notes[0]!,
      /^its blocks \(GPTQ, q4, blocks of 32\) are multiplied out, in (the|fp32)/,
    );
  }
  // With blocks an export keeps them, but where LoRA is merged; convert compares its logits in the client.
  const out = join(root, "blocks");
  const kept = { model: base, adapter: put.adapter, cacheDir: where.cacheDir, out };
  const { notes } = await convert({ ...kept, target: "onnx", dtype: "q4" });
  assert.match(notes.join(), /stay what they are, where nothing .*LoRA .*these became blocks: q4/);
  const { weights, configJson } = await openModel(join(root, "safetensors"));
  assert.ok(!("quantization_config" in configJson));
  for (const [name, info] of plain.weights)
    assert.deepEqual(await readBytes(weights.get(name)!), await readBytes(info), name);
});

test("a GGUF file trains in its blocks, and is written multiplied out", async (t) => {
  const root = await temporaryFolder(t);
  const [model, base, inF32] = ["model", "base.gguf", "f32.gguf"].map((name) => join(root, name));
  await mkdir(model!);
  await writeRandomModel(model!, {
    model_type: "llama",
    num_hidden_layers: 1,
    hidden_size: 256,
    intermediate_size: 256,
    num_attention_heads: 4,
    vocab_size: 37,
    max_position_embeddings: 64,
    rms_norm_eps: 1e-5,
  });
  await writeRandomBlocks(model!, [base!, inF32!], (name) =>
    /attn_v|output/.test(name) ? "Q6_K" : "Q4_K",
  );
  const data = await writeTokens(join(root, "data"));
  const where = { cacheDir: join(root, "cache"), device: "cpu", threads: 1 } as const;
  const of = { data, ...smallRecipe, ...where, tune: ["temperatures", "lora"] as const };
  const run = (base: string, out: string, more: object = {}) =>
    fineTune({ base, out: join(root, out), ...of, ...more });
  const adapter = await run(base!, "adapter", { final: "adapter" });
  const spec = { bits: 4, block: 32, head: false, method: "gguf", formats: ["Q4_K", "Q6_K"] };
  assert.deepEqual(adapter.quantized, { ...spec, original: null });
  const plain = await run(inF32!, "plain", { final: "adapter" });
  assert.equal(plain.quantized, undefined);
  for (const when of ["before", "after"] as const)
    assert.ok(Math.abs(adapter[when].lossNats - plain[when].lossNats) < 1e-5, when);
  const put = { adapter: join(root, "adapter", "final"), data: join(data, "val.bin"), ...where };
  assert.equal((await evaluate({ model: base!, ...put })).lossNats, adapter.after.lossNats);

  await assert.rejects(run(base!, "all", { tune: ["all"] }), ({ message }: Error) =>
    /^tune: all trains matrices, which .*base\.gguf has only frozen: GGUF, Q4_K and Q6_K$/.test(
      message,
    ),
  );
  const out = join(root, "out");
  const { notes } = await convert({
    model: base!,
    target: "safetensors",
    out,
    ...opening(placesOf(where)),
  });
  const told =
    "its blocks (GGUF, Q4_K and Q6_K) are multiplied out, in the number format of their factors";
  assert.equal(notes[0], told);
  const expected = await openModel(inF32!, opening(placesOf(where)));
  const { weights } = await openModel(out);
  for (const [name, info] of expected.weights)
    allClose(await readFloats(weights.get(name)!), await readFloats(info)); // but for the sign of zeros
});

test("what is generated from is the quantised base, checked against it, and kept apart", async (t) => {
  const [root, model] = [await temporaryFolder(t), await temporaryFolder(t)];
  await writeRandomModel(model, { ...config, vocab_size: 37 }, "F32");
  const kept = { model, cacheFolder: join(root, "exports"), cacheDir: join(root, "cache") };
  const quantization = { ...quantized, bits: 4, zeroPoints: true } as const;
  // The conversion compares logits of what it has written with those of the blocks.
  const [plain, blocks] = [await cachedExport(kept), await cachedExport({ ...kept, quantization })];
  assert.notEqual(plain, blocks);
  assert.equal(await cachedExport({ ...kept, quantization }), blocks);
  const [of, other] = [plain, blocks].map((folder) => readFile(join(folder, "onnx", "model.onnx")));
  assert.notDeepEqual(await of, await other);
});
