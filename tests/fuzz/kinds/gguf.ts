// GGUF files: what their header says, and where it ends; tensors in blocks, a tokenizer.

import { rm } from "node:fs/promises";
import { join } from "node:path";
import { loadTokenizer } from "../../../src/data/tokenizer/tokenizer.ts";
import { folderOfGguf } from "../../../src/model/gguf.ts";
import { openModel } from "../../../src/model/open.ts";
import { floatsOf } from "../../../src/model/weights.ts";
import { gguf, type GgufTensor } from "../../llama-cpp/gguf.ts";
import { reading } from "../contract.ts";
import { below, happens, mutateBytes } from "../mutate.ts";
import { lay, type Prepare, subject } from "../subject.ts";

interface Case {
  readonly of: keyof typeof tokenizers;
  readonly bytes: Uint8Array;
}

/** Of words and of SentencePiece's marks. */
const tokenizers = {
  words: {
    "tokenizer.ggml.model": "gpt2",
    "tokenizer.ggml.pre": "llama-bpe",
    "tokenizer.ggml.tokens": ["<s>", "a", "b", "ab", "c"],
    "tokenizer.ggml.merges": ["a b"],
  },
  marks: {
    "tokenizer.ggml.model": "llama",
    "tokenizer.ggml.tokens": ["<s>", "a", "b", "ab", "\u2581"],
    "tokenizer.ggml.scores": { f32: [0, -1, -2, -3, -4] },
  },
};
const names = Object.keys(tokenizers) as Case["of"][];

const weights: Readonly<Record<string, readonly number[]>> = {
  token_embd: [5, 32],
  output_norm: [32],
  "blk.0.attn_norm": [32],
  "blk.0.ffn_norm": [32],
  "blk.0.attn_q": [32, 32],
  "blk.0.attn_k": [32, 32],
  "blk.0.attn_v": [32, 32],
  "blk.0.attn_output": [32, 32],
  "blk.0.ffn_gate": [32, 32],
  "blk.0.ffn_up": [32, 32],
  "blk.0.ffn_down": [32, 32],
};

/** A Llama of one layer, its matrices in blocks of Q8_0. */
function untouchedFile(of: Case["of"]): Buffer {
  const tensors = Object.entries(weights).map(([name, shape]): [string, GgufTensor] => {
    const [rows, columns] = shape;
    if (!columns) return [`${name}.weight`, { shape, data: new Uint8Array(4 * rows!) }];
    const data = Uint8Array.from({ length: (rows! * columns * 34) / 32 }, (_, i) => (i * 37) % 64);
    return [`${name}.weight`, { shape, data, type: 8 }];
  });
  const sizes = {
    context_length: 16,
    embedding_length: 32,
    feed_forward_length: 32,
    block_count: 1,
  };
  const metadata = {
    "general.architecture": "llama",
    ...Object.fromEntries(Object.entries(sizes).map(([key, u32]) => [`llama.${key}`, { u32 }])),
    "llama.attention.head_count": { u32: 4 },
    "llama.attention.layer_norm_rms_epsilon": { f32: 1e-5 },
    "llama.rope.freq_base": { f32: 1e4 },
    ...tokenizers[of],
    "tokenizer.ggml.token_type": { i32: [3, 1, 1, 1, 1] },
    "tokenizer.ggml.bos_token_id": { u32: 0 },
  };
  return gguf(metadata, new Map(tensors));
}

export const ggufFiles: Prepare = async ({ folder }) => {
  const [path, cache] = [join(folder, "model.gguf"), join(folder, "cache")];
  const files = names.map(untouchedFile);
  const read = async () => {
    const made = await folderOfGguf(path, cache);
    const { weights, configJson } = await openModel(made);
    const values = await Promise.all([...weights.values()].map(floatsOf));
    const tokenizer = await loadTokenizer(made);
    const { ids } = tokenizer.encode([{ text: "abcab", isLast: true, isTarget: true }]);
    const bytes = values.map((each) => Buffer.from(each.buffer).toString("base64"));
    return JSON.stringify([configJson, [...ids], tokenizer.prefix, bytes]);
  };
  const untouched = new Map<string, string>();
  for (const [i, of] of names.entries()) {
    await lay(folder, { "model.gguf": files[i]! });
    untouched.set(of, await read());
  }
  return subject<Case>({
    mutate: (random) => {
      const i = below(random, names.length);
      const [of, file] = [names[i]!, files[i]!];
      if (happens(random, 0.3)) return { of, bytes: mutateBytes(file, random) };
      const end = 1 + below(random, 1200); // most of what comes later are values
      const begun = mutateBytes(file.subarray(0, end), random);
      return { of, bytes: Buffer.concat([begun, file.subarray(end)]) };
    },
    check: async ({ of, bytes }) => {
      await rm(cache, { recursive: true, force: true });
      await lay(folder, { "model.gguf": bytes });
      const found = await reading([path, cache], read);
      if ("refusal" in found) return "refused";
      return found.value === untouched.get(of) ? "same" : "other";
    },
  });
};
