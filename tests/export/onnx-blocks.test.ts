// ONNX exports in blocks of integers, in the hands of @huggingface/transformers, against the model multiplied out.

import assert from "node:assert/strict";
import { readdir, readFile, stat } from "node:fs/promises";
import { join } from "node:path";
import { test, type TestContext } from "node:test";
import { writeRandomModel } from "../../bench/models.ts";
import { encodeFloats, f16ToF32, f32ToF16 } from "../../src/core/dtype.ts";
import { openClient } from "../../src/export/client.ts";
import { convert } from "../../src/export/convert.ts";
import { openSafetensors, readFloats, writeSafetensors } from "../../src/files/safetensors.ts";
import { openModel, type OpenOptions } from "../../src/model/open.ts";
import { opening, placesOf } from "../../src/model/places.ts";
import { fixtures } from "../fixtures/variants.ts";
import { temporaryFolder } from "../helpers.ts";
import { writeRandomBlocks } from "../llama-cpp/random-blocks.ts";
import { gpt2, llama } from "../model/tiny-geometries.ts";
import { generated, greedyTokens, openGreedy, refused } from "./fixture.ts";

const families = { llama, gpt2 };

async function writeTiny(t: TestContext, name: keyof typeof families, more: object = {}) {
  const model = await temporaryFolder(t);
  await writeRandomModel(model, { ...families[name], vocab_size: 301, ...more }, "BF16");
  return model;
}

/** Llama.cpp's rules of Q4_0 and Q8_0, and back, in place: what blocks of 32 leave of a matrix. */
function round(values: Float32Array, bits: 4 | 8): void {
  for (let start = 0; start < values.length; start += 32) {
    const block = values.subarray(start, start + 32);
    const extreme = block.reduce((a, b) => (Math.abs(b) > Math.abs(a) ? b : a), 0);
    const exact = bits === 4 ? extreme / -8 : Math.abs(extreme) / 127;
    const factor = f16ToF32(f32ToF16(exact));
    const [least, most] = bits === 4 ? [-8, 7] : [-127, 127];
    const code = (x: number) => Math.min(most, Math.max(least, Math.floor(x / factor + 0.5)));
    block.forEach((x, i) => (block[i] = factor === 0 ? 0 : code(x) * factor));
  }
}

/** The same model with the matrices of its layers multiplied out, in F32. */
async function multipliedOut(t: TestContext, model: string, bits: 4 | 8): Promise<string> {
  const out = join(await temporaryFolder(t), "out");
  await convert({ model, target: "safetensors", out, dtype: "fp32" });
  const { tensors } = await openSafetensors(out);
  const made = [];
  for (const info of tensors.values()) {
    const values = await readFloats(info);
    const isMatrix = info.shape.length === 2 && /\.(layers|h)\./.test(info.name);
    if (isMatrix) round(values, bits);
    const { name, shape } = info;
    made.push({ name, shape, dtype: "F32" as const, data: encodeFloats("F32", values) });
  }
  await writeSafetensors(join(out, "model.safetensors"), made);
  return out;
}

/** The client of an export, whose logits are those of another model, within `bound` of the largest. */
async function compareWithClient(
  t: TestContext,
  out: string,
  expected: string,
  bound: number,
  options: OpenOptions = {},
) {
  const client = await openClient(out);
  const ids = [7, 3, 9, 12, 5, 21, 8, 2];
  const greedy = await openGreedy(await openModel(expected, options), ids.length);
  t.after(async () => {
    await client.dispose();
    await greedy.dispose();
  });
  const logits = await greedy.logits(ids);
  const actual = await client.forward([ids], [ids.map(() => 1)]);
  const scale = Math.max(...logits.map(Math.abs));
  const largest = Math.max(...logits.map((x, i) => Math.abs(x - actual.logits[i]!)));
  t.diagnostic(`logits differ by ${largest / scale} of the largest`);
  assert.ok(largest <= bound * scale, `${largest} of ${scale}`);
  return client;
}

// Logits are compared with the largest of them: F32 sums in another order, half precision rounds activations as well.
const cases = [
  ["llama", "q4f16", 4, "model_q4f16.onnx", 2e-3],
  ["llama", "q4", 4, "model_q4.onnx", 1e-5],
  ["llama", "q8", 8, "model_quantized.onnx", 1e-5],
  ["gpt2", "q4f16", 4, "model_q4f16.onnx", 2e-3], // whose matrices lie the other way round
] as const;

for (const [family, dtype, bits, file, bound] of cases)
  test(`${family} in ${dtype}, in several files: logits and greedy tokens of the model multiplied out`, async (t) => {
    const model = await writeTiny(t, family);
    const out = join(await temporaryFolder(t), dtype);
    await convert({ model, target: "onnx", out, dtype, maxFileBytes: 80_000 });
    const names = (await readdir(join(out, "onnx"))).toSorted();
    assert.deepEqual(names.slice(0, 3), [file, `${file}_data`, `${file}_data_1`]);
    assert.deepEqual((await readdir(out)).toSorted(), [
      "README.md",
      "config.json",
      "generation_config.json",
      "onnx",
    ]);

    const expected = await multipliedOut(t, model, bits);
    const client = await compareWithClient(t, out, expected, bound);
    const prompt = [3, 1, 4, 1, 5];
    const tokens = await greedyTokens({ model: expected }, prompt, 20);
    assert.deepEqual(await generated(client, [prompt], 20), [tokens]);
  });

test("a file of q4f16 is what its blocks are, whole in one file where that is small enough", async (t) => {
  const wide = { hidden_size: 256, intermediate_size: 1024, max_position_embeddings: 64 };
  const model = await writeTiny(t, "llama", wide);
  const out = join(await temporaryFolder(t), "q4f16");
  const { notes } = await convert({ model, target: "onnx", out, dtype: "q4f16" });
  const matrices = 2 * (256 * (2 * 256 + 2 * 128) + 3 * 256 * 1024);
  const weights = (4.5 / 8) * matrices + 2 * 2 * 301 * 256;
  const { size } = await stat(join(out, "onnx", "model_q4f16.onnx"));
  assert.ok(size > weights && size < 1.1 * weights, `${size} of ${weights}`);
  assert.ok(notes.some((note) => /q4, blocks of 32.*--quantize q4/.test(note)));
  assert.match(await readFile(join(out, "README.md"), "utf8"), /q4, blocks of 32/);
});

const bounds = { q4: 1e-5, q8: 1e-5, q4f16: 2e-3 } as const;
const packed = { gptq: "q4f16", "gptq-8": "q8", awq: "q4", mlx: "q4f16" } as const;
for (const [name, dtype] of Object.entries(packed))
  test(`blocks of ${name} stay what they are in ${dtype}: the logits of what NumPy packed`, async (t) => {
    const [model, plain] = [name, "plain"].map((each) => join(fixtures, "packed", each));
    const folder = await temporaryFolder(t);
    const [out, cacheDir] = [join(folder, "out"), join(folder, "cache")];
    const options = { model: model!, target: "onnx", cacheDir } as const;
    const { notes } = await convert({ ...options, out, dtype });
    assert.match(
      notes.join(),
      /^its blocks \((GPTQ|AWQ|MLX), q[48], blocks of 32\) stay what they are/,
    );
    assert.deepEqual(await readdir(out), [
      "README.md",
      "config.json",
      "generation_config.json",
      "onnx",
    ]);
    await compareWithClient(t, out, plain!, bounds[dtype]);
    const others = dtype === "q8" ? "q4f16" : "q8";
    await assert.rejects(
      convert({ ...options, out: join(folder, "other"), dtype: others }),
      refused(
        new RegExp(
          `has blocks of other bits already: .*\ntake --dtype ${dtype === "q8" ? "q8" : "q4f16"}`,
        ),
      ),
    );
  });

test("a GGUF file's blocks of several kinds stay, an embedding that is the head as well among them", async (t) => {
  const sizes = { hidden_size: 256, intermediate_size: 256, max_position_embeddings: 64 };
  const more = { rms_norm_eps: 1e-5, tie_word_embeddings: true };
  const model = await writeTiny(t, "llama", { ...sizes, ...more });
  const folder = await temporaryFolder(t);
  const [path, inF32] = ["blocks.gguf", "f32.gguf"].map((name) => join(folder, name));
  const formatOf = (name: string) => (/token_embd|attn_v/.test(name) ? "Q6_K" : "Q4_K");
  await writeRandomBlocks(model, [path!, inF32!], formatOf);
  const places = opening(placesOf({ cacheDir: join(folder, "cache") }));
  for (const dtype of ["q4", "q4f16"] as const) {
    const out = join(folder, dtype);
    await convert({ ...places, model: path!, target: "onnx", out, dtype });
    await compareWithClient(t, out, inF32!, bounds[dtype], places);
  }
});

test("formats that a target has not, and files that a client does not take, are refused", async (t) => {
  const odd = { hidden_size: 48, intermediate_size: 80 };
  const [model, narrow] = [await writeTiny(t, "llama"), await writeTiny(t, "llama", odd)];
  const folder = await temporaryFolder(t);
  const made = (options: object) =>
    convert({ model, target: "onnx", out: join(folder, "out"), ...options });
  const inSafetensors = made({ target: "safetensors", dtype: "q4" });
  await assert.rejects(inSafetensors, refused(/safetensors with q4 weights.*\n.*--to onnx/));
  await assert.rejects(
    made({ model: narrow, dtype: "q4" }),
    refused(/no matrix .* blocks of 32\n.*--dtype fp16/),
  );
  const long = await writeTiny(t, "llama", { num_hidden_layers: 12 });
  const inShards = made({ model: long, maxFileBytes: 1000 });
  await assert.rejects(inShards, refused(/takes 100\nchoose a larger --max-shard-size/));
  assert.deepEqual(await readdir(folder), []);
});
