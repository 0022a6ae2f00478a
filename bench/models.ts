// Models of known geometry with random weights, written to a folder as a user's would lie there.

import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { openModel } from "../src/model/open.ts";
import type { OpenedModel } from "../src/model/opened.ts";
import { DTYPE_BYTES, encodeFloats } from "../src/core/dtype.ts";
import { createRandom } from "../src/core/random.ts";
import { sizeOf } from "../src/core/shape.ts";
import { type TensorInfo, writeSafetensors } from "../src/files/safetensors.ts";
import { readModel } from "../src/models/index.ts";
import { withInitialValues } from "../src/insertions/insertion.ts";
import { DEFAULT_TEMPERATURES } from "../src/insertions/parts.ts";
import { temperatures } from "../src/insertions/temperatures.ts";

type Json = Readonly<Record<string, unknown>>;

const gpt2 = (n_layer: number, n_head: number, n_embd: number): Json => ({
  model_type: "gpt2",
  n_layer,
  n_head,
  n_embd,
  n_positions: 1024,
  vocab_size: 50257,
});

/** As the hub's config.json of each says. */
export const GEOMETRIES = {
  "gpt2-quarter": gpt2(6, 6, 384),
  gpt2: gpt2(12, 12, 768),
  "gpt2-medium": gpt2(24, 16, 1024),
  "gpt2-xl": gpt2(48, 25, 1600),
  /** Of no model: small, so that long windows are affordable. */
  "llama-narrow": {
    model_type: "llama",
    num_hidden_layers: 4,
    hidden_size: 256,
    intermediate_size: 704,
    num_attention_heads: 8,
    num_key_value_heads: 4,
    vocab_size: 512,
    max_position_embeddings: 32768,
    rms_norm_eps: 1e-5,
    rope_theta: 500000,
    tie_word_embeddings: true,
  },
  "llama-3.2-1b": {
    model_type: "llama",
    num_hidden_layers: 16,
    hidden_size: 2048,
    intermediate_size: 8192,
    num_attention_heads: 32,
    num_key_value_heads: 8,
    head_dim: 64,
    vocab_size: 128256,
    max_position_embeddings: 131072,
    rms_norm_eps: 1e-5,
    rope_theta: 500000,
    tie_word_embeddings: true,
  },
  "llama-3-8b": {
    model_type: "llama",
    num_hidden_layers: 32,
    hidden_size: 4096,
    intermediate_size: 14336,
    num_attention_heads: 32,
    num_key_value_heads: 8,
    vocab_size: 128256,
    max_position_embeddings: 8192,
    rms_norm_eps: 1e-5,
    rope_theta: 500000,
    tie_word_embeddings: false,
  },
} as const satisfies Readonly<Record<string, Json>>;

export type Geometry = keyof typeof GEOMETRIES;

/** Writes config.json and model.safetensors. Values repeat every 4 MB: what they are changes no timing. */
export async function writeRandomModel(
  folder: string,
  config: Json,
  dtype: "F32" | "BF16" = "F32",
): Promise<void> {
  const path = join(folder, "config.json");
  await writeFile(path, JSON.stringify(config));
  const { weights, groupOf, initialValue } = readModel(path, config);
  const random = createRandom(1);
  const tiles = new Map<string, Uint8Array>();
  const tensors = [...weights].map(([name, shape]) => {
    // One for each group, of which a norm's weights and biases are two.
    const kind = [groupOf(name), groupOf(name) === "norms" && name.endsWith("weight")].join();
    const initial = initialValue(name);
    const values = () => new Float32Array(1 << 20).map(() => initial(random));
    const source = tiles.get(kind) ?? encodeFloats(dtype, values());
    tiles.set(kind, source);
    const data = () => repeated(source, sizeOf(shape) * DTYPE_BYTES[dtype]);
    return { name, dtype, shape: shape.map(Number), data };
  });
  await writeSafetensors(join(folder, "model.safetensors"), tensors);
}

/** The model with the default temperatures, all zero. */
export async function openWithTemperatures(folder: string): Promise<OpenedModel> {
  return withTemperatures(await openModel(folder));
}

/** The same of a config alone, for graphs that are built and never run. */
export async function openConfig(
  folder: string,
  config: Json,
  dtype: "F32" | "F16" | "BF16",
): Promise<OpenedModel> {
  await writeFile(join(folder, "config.json"), JSON.stringify(config));
  const base = await openModel(folder, { withoutWeights: true });
  const weights = new Map<string, TensorInfo>();
  for (const [name, dims] of base.model.weights) {
    const shape = dims.map(Number);
    const byteLength = sizeOf(shape) * DTYPE_BYTES[dtype];
    weights.set(name, { name, dtype, shape, file: "", offset: 0, byteLength });
  }
  return withTemperatures({ ...base, weights });
}

function withTemperatures(base: OpenedModel): OpenedModel {
  const insertion = temperatures.of(DEFAULT_TEMPERATURES);
  return { ...base, temperatures: withInitialValues(insertion, base.model, createRandom(0)) };
}

/** Bytes of all weights as they are stored. */
export function weightBytes({ weights, quantized }: OpenedModel): number {
  let bytes = 0;
  for (const { byteLength } of (quantized?.weights ?? weights).values()) bytes += byteLength;
  return bytes;
}

/** Token ids that use the whole vocabulary. */
export function randomIds(length: number, vocabSize: number): Int32Array {
  return Int32Array.from({ length }, (_, i) => (i * 7919) % vocabSize);
}

async function* repeated(source: Uint8Array, byteLength: number): AsyncGenerator<Uint8Array> {
  for (let left = byteLength; left > 0; left -= source.length)
    yield source.subarray(0, Math.min(left, source.length));
}
