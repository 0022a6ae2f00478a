// The fixtures' models against llama.cpp, which has its own code for each family: logits to 1e-4, mean nats to 1e-5.

import assert from "node:assert/strict";
import { mkdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { type Engine, openEngine } from "../../src/engines/index.ts";
import {
  openSafetensors,
  readBytes,
  readFloats,
  writeSafetensors,
} from "../../src/files/safetensors.ts";
import { boundWeights, buildForward, logitsOf } from "../../src/model/graph.ts";
import { folderOfGguf } from "../../src/model/gguf.ts";
import { openModel } from "../../src/model/open.ts";
import { fixtures, variants } from "../fixtures/variants.ts";
import { architectures, convert } from "../llama-cpp/convert.ts";
import { type Job, llamaCpp, skipWithoutLlamaCpp } from "../llama-cpp/libraries.ts";
import { sharedFolder } from "../helpers.ts";

type Json = Readonly<Record<string, unknown>>;

/** Variants that llama.cpp cannot be told: a list of layers with windows or positions; no biases where others have them. */
const unsayable = ["gemma3_text-newer", "smollm3", "starcoder2-untied"];

const configOf = async (folder: string) =>
  JSON.parse(await readFile(join(folder, "config.json"), "utf8")) as Json;

const compared = (
  await Promise.all(
    variants.map(async (name) => {
      const { model_type: type } = await configOf(join(fixtures, name));
      return Object.hasOwn(architectures, String(type)) && !unsayable.includes(name) ? [name] : [];
    }),
  )
).flat();

/** What llama.cpp leaves out of a family, taken out of the model: windows, and a scale that is not of the heads. */
function withoutWhatIsNotThere(config: Json): Json {
  if (String(config["model_type"]).startsWith("gemma"))
    return { ...config, query_pre_attn_scalar: config["head_dim"] };
  const { layer_types: _, ...rest } = config;
  return "sliding_window" in config
    ? { ...rest, sliding_window: null, use_sliding_window: false }
    : config;
}

/**
 * llama.cpp reads gelu from a table in half precision, but not beyond 10: what goes in is times a large power of two, and
 * what comes out divided by it.
 */
const LARGE = 4096;
const beforeGelu = /(gate_proj|c_fc|dense_h_to_4h)\.(weight|bias)$/;
const afterGelu = /(mlp\.c_proj|dense_4h_to_h|down_proj)\.weight$/;

/** A fixture's model as both programs can have it. */
async function prepare(variant: string, folder: string): Promise<void> {
  const source = join(fixtures, variant);
  const config = withoutWhatIsNotThere(await configOf(source));
  const keys = ["hidden_activation", "activation_function", "hidden_act"];
  const hasGelu = keys.some((key) => JSON.stringify(config[key] ?? "").includes("gelu"));
  const { tensors } = await openSafetensors(source);
  const isWeight = (name: string) => !/\.(attn|attention)\.(masked_)?bias$|rotary_emb/.test(name);
  const weights = [...tensors.values()].filter(({ name }) => isWeight(name));
  const scaled = weights.map(async (info) => {
    const { name, shape } = info;
    const isAfter = afterGelu.test(name) ? 1 / LARGE : 1;
    const factor = hasGelu ? (beforeGelu.test(name) ? LARGE : isAfter) : 1;
    const values = (await readFloats(info)).map((value) => factor * value);
    return { name, shape, dtype: "F32" as const, data: new Uint8Array(values.buffer) };
  });
  await mkdir(folder, { recursive: true });
  await writeFile(join(folder, "config.json"), JSON.stringify(config));
  await writeSafetensors(join(folder, "model.safetensors"), await Promise.all(scaled));
}

async function idsOf(variant: string) {
  const { tensors } = await openSafetensors(join(fixtures, variant, "expected.safetensors"));
  const info = tensors.get("input_ids")!;
  const [batchSize, context] = info.shape as [number, number];
  return { ids: new BigInt64Array((await readBytes(info)).buffer), batchSize, context };
}

let engine: Engine;
let root: string;
before(async () => {
  engine = await openEngine("cpu", { threads: 1 });
  root = sharedFolder();
  const jobs: Job[] = [];
  for (const variant of compared) {
    const folder = join(root, variant);
    await prepare(variant, folder);
    const logits = join(folder, "model.gguf");
    await convert(folder, logits);
    const { ids, batchSize, context } = await idsOf(variant);
    const row = (i: number) => Array.from(ids.slice(i * context, (i + 1) * context), Number);
    const sequences = Array.from({ length: batchSize }, (_, i) => row(i));
    const { rope_parameters: rope } = (await configOf(folder)) as { rope_parameters?: Json };
    const yarn = rope?.["beta_fast"]
      ? { yarn: [rope["beta_fast"], rope["beta_slow"]].map(Number) }
      : {};
    jobs.push({ logits, ids: sequences, to: join(folder, "logits"), ...yarn });
  }
  if (!skipWithoutLlamaCpp) await llamaCpp(jobs);
});
after(async () => {
  await engine.dispose();
});

/** Mean nats of every token but the first of each sequence. */
function meanNats(logits: Float32Array, ids: BigInt64Array, context: number): number {
  const vocabSize = logits.length / ids.length;
  let [total, count] = [0, 0];
  for (let i = 0; i + 1 < ids.length; i++) {
    if ((i + 1) % context === 0) continue;
    const row = logits.subarray(i * vocabSize, (i + 1) * vocabSize);
    const largest = Math.max(...row);
    const sum = row.reduce((sum, logit) => sum + Math.exp(logit - largest), 0);
    total += Math.log(sum) + largest - row[Number(ids[i + 1])]!;
    count++;
  }
  return total / count;
}

async function logitsOfFolder(folder: string, variant: string): Promise<Float32Array> {
  const opened = await openModel(folder);
  const { ids, batchSize, context } = await idsOf(variant);
  const outputs = { logits: logitsOf(buildForward(opened, { batchSize, context })) };
  const program = await engine.compile(outputs, boundWeights(opened));
  const { logits } = await program.run({ ids });
  await program.dispose();
  return logits!;
}

const own = new Map<string, Float32Array>();

const largestDifference = (a: Float32Array, b: Float32Array) =>
  a.reduce((most, value, i) => Math.max(most, Math.abs(value - b[i]!)), 0);

for (const variant of compared)
  test(`${variant}: llama.cpp's logits`, { skip: skipWithoutLlamaCpp }, async () => {
    const { ids, context } = await idsOf(variant);
    const ours = await logitsOfFolder(join(root, variant), variant);
    own.set(variant, ours);
    const bytes = await readFile(join(root, variant, "logits"));
    const theirs = new Float32Array(new Uint8Array(bytes).buffer);
    assert.equal(theirs.length, ours.length);
    const largest = ours.reduce(
      (most, value, i) => Math.max(most, Math.abs(value - theirs[i]!)),
      0,
    );
    assert.ok(largest <= 1e-4, `a logit differs by ${largest}`);
    const [mine, other] = [ours, theirs].map((logits) => meanNats(logits, ids, context));
    assert.ok(Math.abs(mine! - other!) <= 1e-5, `mean nats: ${mine}, llama.cpp: ${other}`);
  });

/** One of each family, and what is said in other ways than by a number. */
const readBack = ["gpt_neox-sequential", "llama3", "llama-bias", "phi3-short", "qwen2-yarn"];
for (const variant of compared.filter((name) => name in architectures || readBack.includes(name)))
  test(`${variant}: the same model, read from its GGUF file`, async () => {
    const folder = await folderOfGguf(join(root, variant, "model.gguf"), join(root, "cache"));
    const ours = own.get(variant) ?? (await logitsOfFolder(join(root, variant), variant));
    const difference = largestDifference(ours, await logitsOfFolder(folder, variant));
    assert.ok(difference <= 1e-5, `a logit differs by ${difference}`);
  });
