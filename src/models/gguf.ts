// What GGUF's metadata and tensor names mean: a config.json, and the weights' names and order in Hugging Face's files.
// By llama.cpp's converter, backwards: https://github.com/ggml-org/llama.cpp/blob/master/convert_hf_to_gguf.py

import { unsupported, UserError } from "../core/errors.ts";
import { type JsonObject, shown } from "../core/json.ts";
import type { Order } from "../files/gguf.ts";
import type { Family } from "./family.ts";
import { families } from "./index.ts";

/** A value of the architecture's own keys; undefined where there is none. */
type Read = (key: string) => unknown;

/** llama.cpp's names of architectures, and `model_type`. */
const others = { gemma3: "gemma3_text", gptneox: "gpt_neox" };
const alike = "gemma2 gpt2 granite llama olmo2 phi3 qwen2 qwen3 smollm3 starcoder2".split(" ");
const types = new Map([...alike.map((name) => [name, name] as const), ...Object.entries(others)]);
/** It turns neighbours here, where Hugging Face turns halves: rows of queries and keys are in that order. */
const turningNeighbours: readonly string[] = ["granite", "llama", "smollm3"];
/** Block counts of those that scale attention by hidden size over heads, unlike their family; no key says it. */
const scaledByWidth: Readonly<Record<string, number>> = { gemma2: 46, gemma3: 62 };

/** Settings of few families, in config.json and in the metadata. */
const settings = {
  attention_multiplier: "attention.scale",
  attn_logit_softcapping: "attn_logit_softcapping",
  embedding_multiplier: "embedding_scale",
  final_logit_softcapping: "final_logit_softcapping",
  logits_scaling: "logit_scale",
  residual_multiplier: "residual_scale",
  rope_local_base_freq: "rope.freq_base_swa",
  sliding_window: "attention.sliding_window",
  sliding_window_pattern: "attention.sliding_window_pattern",
  use_parallel_residual: "use_parallel_residual",
};

interface Described {
  readonly metadata: ReadonlyMap<string, unknown>;
  readonly tensors: readonly { readonly name: string; readonly shape: readonly number[] }[];
  /** Of frequencies, a number for each pair, by the tensor that holds them. */
  readonly divisors: ReadonlyMap<string, readonly number[]>;
}

/** The model of a file: its config.json, and of each of its weights the name and the order there. */
export function modelOfGguf(path: string, { metadata, tensors, divisors }: Described) {
  const named = String(metadata.get("general.architecture"));
  const type = types.get(named);
  const known = [...types.keys()].sort();
  if (!type) throw unsupported(`${path}: the architecture ${shown(named)}`, named, known);
  const family = families[type]!;
  const read: Read = (key) => metadata.get(`${named}.${key}`);
  const shapes = new Map(tensors.map(({ name, shape }) => [name, shape]));
  const [width, heads] = [Number(read("embedding_length")), Number(read("attention.head_count"))];
  const headDim = Number(read("attention.key_length") ?? width / heads);
  const turning = Number(read("rope.dimension_count") ?? headDim);
  const turnsInPart = turning !== headDim || "partial_rotary_factor" in family.aliases;
  const usual = {
    num_hidden_layers: read("block_count"),
    hidden_size: read("embedding_length"),
    num_attention_heads: read("attention.head_count"),
    num_key_value_heads: read("attention.head_count_kv"),
    ...((headDim !== width / heads || family.headDim) && { head_dim: headDim }),
    intermediate_size: read("feed_forward_length"),
    vocab_size: shapes.get("token_embd.weight")?.[0],
    max_position_embeddings: read("context_length"),
    rms_norm_eps: read("attention.layer_norm_rms_epsilon") ?? read("attention.layer_norm_epsilon"),
    ...(!family.embeddings.positions && { rope_theta: read("rope.freq_base") ?? 10000 }),
    ...(turnsInPart && { partial_rotary_factor: turning / headDim }),
  };
  const nameIn = (key: string) => family.aliases[key]?.[0] ?? key;
  const config: JsonObject = {
    model_type: type,
    ...Object.fromEntries(Object.entries(usual).map(([key, value]) => [nameIn(key), value])),
    tie_word_embeddings: !shapes.has("output.weight"),
    attention_bias: shapes.has("blk.0.attn_output.bias") || undefined,
    mlp_bias: shapes.has("blk.0.ffn_down.bias") || undefined,
    rope_scaling: ropeScaling(read, divisors),
    // A window of 0 keys is none.
    ...Object.fromEntries(
      Object.entries(settings).map(([name, key]) => [name, read(key) === 0 ? null : read(key)]),
    ),
    ...(scaledByWidth[named] && {
      query_pre_attn_scalar: read("block_count") === scaledByWidth[named] ? width / heads : headDim,
    }),
    bos_token_id: metadata.get("tokenizer.ggml.bos_token_id"),
    eos_token_id: metadata.get("tokenizer.ggml.eos_token_id"),
  };
  const turns = turningNeighbours.includes(named);
  return {
    config,
    /** What a weight is called there, its shape, and how it gets into the order there, where it is another. */
    placeOf: (tensor: string, shape: readonly number[]) => ({
      name: nameOf(path, family, tensor),
      ...arranged(tensor, shape, family, { turns, heads, H: headDim }),
    }),
  };
}

function ropeScaling(read: Read, divisors: Described["divisors"]): JsonObject | null {
  const type = read("rope.scaling.type");
  const original = read("rope.scaling.original_context_length");
  const lengths = { original_max_position_embeddings: original ?? read("context_length") };
  // Llama 3.1's rule as well, as what has come of it for each pair.
  const pairs = divisors.get("rope_freqs.weight");
  const short = pairs ?? divisors.get("rope_factors_short.weight");
  if (short)
    return {
      rope_type: "longrope",
      short_factor: short,
      long_factor: pairs ?? divisors.get("rope_factors_long.weight"),
      attention_factor: pairs ? 1 : read("rope.scaling.attn_factor"),
      ...lengths,
    };
  if (type === undefined || type === "none") return null;
  return { rope_type: type, factor: read("rope.scaling.factor"), ...(type === "yarn" && lengths) };
}

function nameOf(path: string, family: Family, tensor: string): string {
  const { prefix, embeddings, layers, norms, attention, projections, mlp } = family;
  const below = (name?: string) => name && `${attention.name}.${name}`;
  const [q, k, v] = projections.names.map(below);
  const outside = {
    token_embd: embeddings.input,
    position_embd: embeddings.positions,
    output_norm: norms.final,
  };
  const inLayer = {
    attn_norm: norms.attention[0],
    post_attention_norm: norms.attention[1],
    ffn_norm: norms.mlp[0],
    post_ffw_norm: norms.mlp[1],
    attn_qkv: q,
    attn_q: q,
    attn_k: k,
    attn_v: v,
    attn_q_norm: below(attention.norms?.names[0]),
    attn_k_norm: below(attention.norms?.names[1]),
    attn_output: below(attention.output),
    ffn_gate: mlp.gate,
    ffn_up: mlp.up,
    ffn_down: mlp.down,
  };
  const [, layer, part = "", kind] = /^(?:blk\.(\d+)\.)?(\w+)\.(weight|bias)$/.exec(tensor) ?? [];
  if (layer === undefined && part === "output") return `${embeddings.output}.${kind}`;
  const place = new Map(Object.entries(layer === undefined ? outside : inLayer)).get(part);
  if (place)
    return `${layer === undefined ? prefix : `${prefix}.${layers}.${layer}`}.${place}.${kind}`;
  throw new UserError(`${path}: the tensor ${shown(tensor)} is of no model that ssa reads`);
}

/** From llama.cpp's order of values to Hugging Face's, in heads of H rows. */
function arranged(
  tensor: string,
  shape: readonly number[],
  { norm, layout, projections }: Family,
  { turns, heads, H }: { readonly turns: boolean; readonly heads: number; readonly H: number },
): { readonly shape: readonly number[] } & Order {
  const byRows = (rowOf: (row: number) => number) => ({ shape, rowOf });
  if (norm === "rmsPlusOne" && tensor.endsWith("norm.weight"))
    return { shape, arrange: (values) => values.map((value) => value - 1) };
  if (layout === "DF" && tensor.startsWith("blk.") && shape.length === 2) {
    const [F, D] = shape as [number, number];
    const indexOf = (i: number) => (i % F) * D + Math.floor(i / F);
    return { shape: [D, F], arrange: (values) => values.map((_, i) => values[indexOf(i)]!) };
  }
  if (projections.split === "heads" && tensor.includes("attn_qkv"))
    return byRows((row) => {
      const [head, part] = [Math.floor(row / (3 * H)), Math.floor(row / H) % 3];
      return (part * heads + head) * H + (row % H);
    });
  if (turns && /attn_[qk]\.(weight|bias)$/.test(tensor))
    return byRows((row) => {
      const within = row % H;
      return row - within + 2 * (within % (H / 2)) + Math.floor(within / (H / 2));
    });
  return { shape };
}
