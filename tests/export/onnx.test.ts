// ONNX exports in the hands of @huggingface/transformers: its cache, batches and padding against our whole windows.

import assert from "node:assert/strict";
import { readFile, readdir, stat } from "node:fs/promises";
import { join } from "node:path";
import { test } from "node:test";
import { pipeline } from "@huggingface/transformers";
import { writeRandomModel } from "../../bench/models.ts";
import { openModel } from "../../src/model/open.ts";
import { openClient } from "../../src/export/client.ts";
import { convert } from "../../src/export/convert.ts";
import { writeOnnx } from "../../src/export/onnx.ts";
import { sharedData, skipWithout, temporaryFolder } from "../helpers.ts";
import { allClose } from "../helpers.ts";
import { architectures, fixture, generated, greedyTokens, openGreedy } from "./fixture.ts";

const stories = sharedData("stories260k");

const exported = [
  ...architectures.flatMap((name) => [[name, "full"] as const, [name, "default"] as const]),
  ["mistral", "full"], // a window of 4 keys, all of which stay in the cache
  ["qwen3", "full"],
  ["smollm3", "full"],
  ["phi3", "full"],
  ["granite", "full"],
  ["olmo2", "full"],
  ["gemma2", "full"],
  ["gemma3_text", "full"], // whose positions the client counts from 1
  ["gpt_neo", "full"],
  ["opt", "full"],
] as const;

for (const [architecture, spec] of exported)
  test(`${architecture} with ${spec} temperatures: cache, batch and padding as the whole window`, async (t) => {
    const source = fixture(architecture, spec);
    const folder = join(await temporaryFolder(t), "onnx");
    const { verification } = await convert({ ...source, target: "onnx", out: folder });
    assert.ok(verification.largest <= 1e-4, `logits differ by ${verification.largest}`);

    const prompt = [3, 1, 4, 1, 5];
    const { model } = await openModel(source.model);
    const length = Math.min(20, model.config.maxPositions);
    const expected = await greedyTokens(source, prompt, length);
    const client = await openClient(folder);
    t.after(() => client.dispose());
    assert.deepEqual(await generated(client, [prompt], length), [expected]);

    // The shorter prompt of a batch stands on the right, behind tokens that must not count.
    const short = prompt.slice(0, 2);
    const padded = await generated(client, [prompt, [0, 0, 0, ...short]], length, 3);
    assert.deepEqual(padded[0], expected);
    const alone = await greedyTokens(source, short, length - 3);
    assert.deepEqual(padded[1]!.slice(3), alone);
  });

test("a prefix of a prompt's cache goes on with several tokens at once", async (t) => {
  const source = fixture("llama");
  const folder = join(await temporaryFolder(t), "onnx");
  await convert({ ...source, target: "onnx", out: folder });
  const ids = [7, 3, 9, 12, 5, 21, 8, 2];
  const client = await openClient(folder);
  const greedy = await openGreedy(await openModel(source.model, source), ids.length);
  t.after(async () => {
    await client.dispose();
    await greedy.dispose();
  });
  const ones = (count: number) => Array.from({ length: count }, () => 1);
  const { past, logits: first } = await client.forward([ids.slice(0, 3)], [ones(3)]);
  const { logits: rest } = await client.forward([ids.slice(3)], [ones(8)], past);
  allClose([...first, ...rest], await greedy.logits(ids), { atol: 1e-4 });
});

test("a long prompt is read by parts, and goes on as if it had been read at once", async (t) => {
  const folder = await temporaryFolder(t);
  const shape = { hidden_size: 16, intermediate_size: 24, num_attention_heads: 2, vocab_size: 40 };
  const llama = { ...shape, model_type: "llama", num_hidden_layers: 1, rms_norm_eps: 1e-5 };
  await writeRandomModel(folder, { ...llama, max_position_embeddings: 2048 });
  const out = join(folder, "export");
  await writeOnnx(out, await openModel(folder), { dtype: "fp32" });
  const client = await openClient(out);
  t.after(() => client.dispose());
  const ids = Array.from({ length: 1300 }, (_, i) => (i * 7) % 40);
  assert.equal(await client.read(ids.slice(0, 1023)), undefined);
  const { past_key_values: past } = (await client.read(ids))!;
  assert.equal(past.get_seq_length(), 512);
  const seen = ids.map(() => 1);
  const { logits } = await client.forward([ids.slice(512)], [seen], past);
  const { logits: whole } = await client.forward([ids], [seen]);
  allClose(logits, whole.subarray(512 * 40), { atol: 1e-5 });
});

for (const variant of ["phi3-long", "starcoder2", "llama-yarn"])
  test(`${variant} without temperatures: as its fixed windows`, async (t) => {
    const { model, out } = { model: fixture(variant).model, out: await temporaryFolder(t) };
    const { verification } = await convert({ model, target: "onnx", out: join(out, "onnx") });
    assert.ok(verification.largest <= 1e-4, `logits differ by ${verification.largest}`);
  });

test("a graph of LongRoPE ends where its frequencies change", async (t) => {
  const { model, out } = { model: fixture("phi3-long").model, out: await temporaryFolder(t) };
  await convert({ model, target: "onnx", out: join(out, "onnx") });
  const { maxCached, config } = (await openModel(model)).model;
  assert.deepEqual([maxCached, config.maxPositions], [8, 128]);
  const client = await openClient(join(out, "onnx"));
  t.after(() => client.dispose());
  const tokens = (count: number) => Array.from({ length: count }, (_, i) => i + 1);
  await client.forward([tokens(8)], [tokens(8).map(() => 1)]);
  await assert.rejects(
    client.forward([tokens(9)], [tokens(9).map(() => 1)]),
    /out of (data )?bounds/,
  );
});

test("a checkpoint in half precision becomes a graph in single precision", async (t) => {
  const folder = await temporaryFolder(t);
  const source = fixture("llama");
  const half = { model: join(folder, "half"), target: "onnx", out: join(folder, "onnx") } as const;
  await convert({ ...source, target: "safetensors", out: half.model, dtype: "bf16" });
  const { verification } = await convert(half);
  assert.ok(verification.largest <= 1e-4, `logits differ by ${verification.largest}`);
});

test("a large model's weights lie in data files beside the graph", async (t) => {
  const folder = await temporaryFolder(t);
  const source = fixture("gpt_neox");
  const inline = await convert({ ...source, target: "onnx", out: join(folder, "inline") });
  const external = await convert({
    ...source,
    target: "onnx",
    out: join(folder, "external"),
    maxFileBytes: 20_000,
  });
  const config = JSON.parse(await readFile(join(external.out, "config.json"), "utf8")) as {
    "transformers.js_config": { use_external_data_format: number };
  };
  const numFiles = config["transformers.js_config"].use_external_data_format;
  const names = (await readdir(join(external.out, "onnx"))).toSorted();
  assert.ok(numFiles > 1);
  assert.equal(names.length, numFiles + 1);
  assert.deepEqual(names.slice(0, 3), ["model.onnx", "model.onnx_data", "model.onnx_data_1"]);
  for (const name of names.slice(1))
    assert.ok((await stat(join(external.out, "onnx", name))).size <= 20_000);
  assert.deepEqual(external.verification, inline.verification);
});

test(
  "stories260k in the library's pipeline gives its author's 256 tokens",
  {
    skip: skipWithout(stories),
  },
  async (t) => {
    const out = join(await temporaryFolder(t), "stories");
    await convert({ model: stories, target: "onnx", out });
    const generator = await pipeline("text-generation", out, { local_files_only: true });
    t.after(() => generator.dispose());
    const [result] = (await generator("", { max_new_tokens: 256 })) as { generated_text: string }[];
    const reference = await readFile(join(stories, "greedy_reference_256.txt"), "utf8");
    assert.equal(result!.generated_text, reference);
  },
);

test(
  "f16 halves the file; the logits' deviation is measured",
  {
    skip: skipWithout(stories),
  },
  async (t) => {
    const out = join(await temporaryFolder(t), "half");
    const { verification } = await convert({ model: stories, target: "onnx", out, dtype: "fp16" });
    t.diagnostic(
      `f16: logits differ by ${verification.largest}, relative ${verification.relative}`,
    );
    assert.ok(verification.largest > 0 && verification.relative < 1e-3);
    assert.ok((await stat(join(out, "onnx", "model_fp16.onnx"))).size < 600_000);
    const client = await openClient(out);
    t.after(() => client.dispose());
    const { past } = await client.forward([[1]], [[1]]);
    assert.equal(past["past_key_values.0.key"]!.type, "float32");
  },
);
