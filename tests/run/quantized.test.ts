// A run on a quantised base: what is reported, what final/ holds, and that it is what `eval` measures again.

import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { test } from "node:test";
import { writeRandomModel } from "../../bench/models.ts";
import { openSafetensors, readBytes } from "../../src/files/safetensors.ts";
import { evaluate, type EvaluateModelOptions } from "../../src/run/evaluate.ts";
import { fineTune } from "../../src/run/fine-tune.ts";
import { temporaryFolder } from "../helpers.ts";
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
  const again = await score({ quantize: "q4", adapter: join(root, "adapter", "final") });
  assert.equal(again.lossNats, after.lossNats);

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
