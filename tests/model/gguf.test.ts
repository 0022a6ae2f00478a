// GGUF files as models: numbers and tokens as llama.cpp has them, what names the file, and what is wrong with a damaged one.

import assert from "node:assert/strict";
import { copyFile, mkdir, readFile, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { UserError } from "../../src/core/errors.ts";
import { createRandom } from "../../src/core/random.ts";
import { loadTokenizer } from "../../src/data/tokenizer/tokenizer.ts";
import { type Engine, openEngine } from "../../src/engines/index.ts";
import { keptValues, openGguf } from "../../src/files/gguf.ts";
import { packageRoot } from "../../src/files/package-root.ts";
import { writeSafetensors } from "../../src/files/safetensors.ts";
import { folderOfGguf } from "../../src/model/gguf.ts";
import { boundWeights, buildForward, logitsOf } from "../../src/model/graph.ts";
import { openModel } from "../../src/model/open.ts";
import { opening, placesOf } from "../../src/model/places.ts";
import { encode, encodedElsewhere } from "../data/tiny-tokenizers.ts";
import { fixtures } from "../fixtures/variants.ts";
import { floatsOf } from "../../src/model/weights.ts";
import { allClose, sharedData, skipWithout, temporaryFolder } from "../helpers.ts";
import { convert, converted } from "../llama-cpp/convert.ts";
import { gguf, type Metadata, writeGguf } from "../llama-cpp/gguf.ts";
import { llamaCpp, skipWithoutLlamaCpp } from "../llama-cpp/libraries.ts";

let engine: Engine;
before(async () => (engine = await openEngine("cpu", { threads: 1 })));
after(() => engine.dispose());

const skip = skipWithoutLlamaCpp;
const bytesOf = async (path: string) => new Uint8Array(await readFile(path)).buffer;

/** A random Llama whose rows are whole blocks of every format. */
async function writeLlama(folder: string): Promise<void> {
  const [hidden, inner, vocab] = [256, 512, 64];
  const config = JSON.parse(
    await readFile(join(fixtures, "llama", "config.json"), "utf8"),
  ) as object;
  const sizes = { hidden_size: hidden, intermediate_size: inner, vocab_size: vocab };
  const layers = { num_hidden_layers: 1, num_attention_heads: 4, num_key_value_heads: 2 };
  await mkdir(folder, { recursive: true });
  await writeFile(join(folder, "config.json"), JSON.stringify({ ...config, ...sizes, ...layers }));
  const shapes: Record<string, readonly number[]> = {
    "model.embed_tokens": [vocab, hidden],
    "model.norm": [hidden],
    lm_head: [vocab, hidden],
    "model.layers.0.input_layernorm": [hidden],
    "model.layers.0.post_attention_layernorm": [hidden],
    "model.layers.0.self_attn.q_proj": [hidden, hidden],
    "model.layers.0.self_attn.k_proj": [hidden / 2, hidden],
    "model.layers.0.self_attn.v_proj": [hidden / 2, hidden],
    "model.layers.0.self_attn.o_proj": [hidden, hidden],
    "model.layers.0.mlp.gate_proj": [inner, hidden],
    "model.layers.0.mlp.up_proj": [inner, hidden],
    "model.layers.0.mlp.down_proj": [hidden, inner],
  };
  const random = createRandom(1);
  const tensors = Object.entries(shapes).map(([name, shape]) => {
    const count = shape.reduce((product, side) => product * side);
    const centre = shape.length === 1 ? 1 : 0;
    const values = Float32Array.from({ length: count }, () => centre + random.normal() / 16);
    return {
      name: `${name}.weight`,
      dtype: "F32" as const,
      shape,
      data: new Uint8Array(values.buffer),
    };
  });
  await writeSafetensors(join(folder, "model.safetensors"), tensors);
}

/** llama.cpp's numbers of the type of a file and of a tensor. */
const formats = [
  ["F16", 1, 1],
  ["BF16", 32, 30],
  ["Q4_0", 2, 2],
  ["Q5_0", 8, 6],
  ["Q8_0", 7, 8],
  ["Q4_K", 15, 12],
  ["Q5_K", 17, 13],
  ["Q6_K", 18, 14],
] as const;

test("values and logits of quantised models are llama.cpp's", { skip }, async (t) => {
  const folder = await temporaryFolder(t);
  const at = (name: string) => join(folder, name);
  await writeLlama(at("model"));
  await convert(at("model"), at("F32.gguf"));
  const ids = Array.from({ length: 16 }, (_, i) => (i * 37) % 64);
  await llamaCpp(
    formats.flatMap(([name, type]) => [
      { quantize: at("F32.gguf"), type, to: at(`${name}.gguf`) },
      { logits: at(`${name}.gguf`), ids: [ids], to: at(`${name}.logits`) },
    ]),
  );
  const stored = formats.map(async ([name, , type]) => {
    const { tensors } = await openGguf(at(`${name}.gguf`));
    const matrices = tensors.filter(({ shape }) => shape.length === 2);
    assert.ok(matrices.every(({ dtype }) => dtype === name));
    const tensor = matrices.find((matrix) => matrix.name === "blk.0.attn_output.weight")!;
    const { offset, byteLength, shape } = tensor;
    const bytes = (await readFile(at(`${name}.gguf`))).subarray(offset, offset + byteLength);
    await writeFile(at(`${name}.stored`), bytes);
    const job = { values: at(`${name}.stored`), type, count: shape[0]! * shape[1]! };
    return { ...job, to: at(`${name}.values`), tensor };
  });
  const jobs = await Promise.all(stored);
  await llamaCpp(jobs);
  for (const { tensor, to } of jobs) {
    const pieces = [];
    for await (const piece of keptValues(tensor, {})) pieces.push(piece);
    const theirs = Buffer.from(await bytesOf(to));
    const isKept = !tensor.dtype.startsWith("Q");
    assert.ok(isKept || Buffer.concat(pieces).equals(theirs), `${tensor.dtype}: other values`);
  }

  for (const [name] of formats) {
    const opened = await openModel(await folderOfGguf(at(`${name}.gguf`), at("cache")));
    const values = new Float32Array(await bytesOf(at(`${name}.values`)));
    const own = await floatsOf(opened.weights.get("model.layers.0.self_attn.o_proj.weight")!);
    // Exact, but for the bias of 4 bits where d and dmin are unlike: of values up to 1/4.
    allClose(own, values, { atol: name === "Q4_K" ? 1e-8 : 0 });
    const graph = buildForward(opened, { batchSize: 1, context: ids.length });
    const program = await engine.compile({ logits: logitsOf(graph) }, boundWeights(opened));
    const { logits } = await program.run({ ids: BigInt64Array.from(ids, BigInt) });
    await program.dispose();
    const theirs = new Float32Array(await bytesOf(at(`${name}.logits`)));
    const square = (sum: number, value: number) => sum + value * value;
    const apart = logits!.map((logit, i) => logit - theirs[i]!).reduce(square, 0);
    const relative = Math.sqrt(apart / theirs.reduce(square, 0));
    // It rounds what it multiplies by halves to halves, and what it multiplies by blocks to 8 bits.
    const tolerance = { F16: 2e-3, BF16: 1e-2 }[name as string] ?? 4e-2;
    assert.ok(relative <= tolerance, `${name}: logits differ by ${relative} of their size`);
  }
});

const tinyGpt2 = join(packageRoot(), "checkpoints", "tiny-gpt2");
const nasty =
  "Hello world's  12345 fa\u00e7ade\n\n  \u00bfQu\u00e9? DON'T <|endoftext|> \u65e5\u672c\u8a9e x=1;\t\tend \r\n 3.14 e\u0301 ";

async function vocabulary(pre: string): Promise<Metadata> {
  const { model } = JSON.parse(await readFile(join(tinyGpt2, "tokenizer.json"), "utf8")) as {
    model: { vocab: Record<string, number>; merges: [string, string][] };
  };
  const tokens = Object.entries(model.vocab).sort((a, b) => a[1] - b[1]);
  return {
    "general.architecture": "gpt2",
    "tokenizer.ggml.model": "gpt2",
    "tokenizer.ggml.pre": pre,
    "tokenizer.ggml.tokens": tokens.map(([token]) => token),
    "tokenizer.ggml.token_type": { i32: tokens.map((_, id) => (id === 0 ? 3 : 1)) },
    "tokenizer.ggml.merges": model.merges.map((pair) => pair.join(" ")),
    "tokenizer.ggml.bos_token_id": { u32: 0 },
    "tokenizer.ggml.eos_token_id": { u32: 0 },
  };
}

test("tokens are llama.cpp's, by each rule for cuts between words", { skip }, async (t) => {
  const folder = await temporaryFolder(t);
  const jobs = ["gpt-2", "smollm", "llama-bpe", "qwen2", "deepseek-r1-qwen"].map(async (pre) => {
    const tokens = join(folder, `${pre}.gguf`);
    await convert(join(fixtures, "gpt2-tanh"), tokens, await vocabulary(pre));
    // Qwen's tokenizer.json composes characters first, llama.cpp does not.
    const text = pre.endsWith("qwen2") || pre.endsWith("qwen") ? nasty.normalize("NFC") : nasty;
    return { pre, tokens, text, to: join(folder, `${pre}.ids`) };
  });
  const made = await Promise.all(jobs);
  await llamaCpp(made);
  for (const { pre, tokens, text, to } of made) {
    const theirs = [...new Int32Array(await bytesOf(to))];
    const tokenizer = await loadTokenizer(await folderOfGguf(tokens, join(folder, "cache")));
    const { ids } = tokenizer.encode([{ text, isLast: true, isTarget: true }]);
    assert.deepEqual([...tokenizer.prefix, ...ids], theirs, tokens);
    assert.equal(tokenizer.prefix.length, pre === "llama-bpe" ? 1 : 0);
    const words = "Hello world and more";
    assert.deepEqual(encodedElsewhere(tokenizer, words), [
      ...tokenizer.prefix,
      ...encode(tokenizer, words),
    ]);
  }
});

const stories = sharedData("stories260k");

/** SentencePiece's BPE of 512 pieces, the better scores first, with a token of the user's besides. */
async function markedVocabulary(hasPrefix: boolean): Promise<[Metadata, merges: unknown]> {
  const { model } = JSON.parse(await readFile(join(stories, "tokenizer.json"), "utf8")) as {
    model: { vocab: Record<string, number>; merges: string[] };
  };
  const tokens = Object.keys(model.vocab).sort((a, b) => model.vocab[a]! - model.vocab[b]!);
  const types = tokens.map((token, id) => [2, 3, 3][id] ?? (/^<0x..>$/.test(token) ? 6 : 1));
  const metadata: Metadata = {
    "general.architecture": "gpt2",
    "tokenizer.ggml.model": "llama",
    "tokenizer.ggml.tokens": [...tokens, "<user>"],
    "tokenizer.ggml.token_type": { i32: [...types, 4] },
    "tokenizer.ggml.scores": { f32: types.map((type, id) => (type === 1 ? -id : 0)).concat(-1000) },
    "tokenizer.ggml.bos_token_id": { u32: 1 },
    "tokenizer.ggml.eos_token_id": { u32: 2 },
    "tokenizer.ggml.unknown_token_id": { u32: 0 },
    "tokenizer.ggml.add_space_prefix": hasPrefix,
  };
  return [metadata, model.merges.map((pair) => pair.split(" "))];
}

test(
  "SentencePiece's tokens are llama.cpp's, its merges those of the tokenizer.json",
  { skip: skip || skipWithout(stories) },
  async (t) => {
    const folder = await temporaryFolder(t);
    const text = `${nasty} <s>Once <unk> upon<user> a time</s> the   end\u2581of it`;
    for (const hasPrefix of [true, false]) {
      const [tokens, to] = [join(folder, `${hasPrefix}.gguf`), join(folder, "ids")];
      const [metadata, merges] = await markedVocabulary(hasPrefix);
      await convert(join(fixtures, "gpt2-tanh"), tokens, metadata);
      await llamaCpp([{ tokens, text, to }]);
      const made = await folderOfGguf(tokens, join(folder, "cache"));
      const tokenizer = await loadTokenizer(made);
      const { ids } = tokenizer.encode([{ text, isLast: true, isTarget: true }]);
      assert.deepEqual([...tokenizer.prefix, ...ids], [...new Int32Array(await bytesOf(to))]);
      const words = "Once upon a time";
      assert.deepEqual(encodedElsewhere(tokenizer, words), [1, ...encode(tokenizer, words)]);
      const json = JSON.parse(await readFile(join(made, "tokenizer.json"), "utf8")) as {
        model: { merges: unknown };
      };
      assert.deepEqual(json.model.merges, merges);
    }
  },
);

test("a GGUF file is a model by its path, and converted once", async (t) => {
  const folder = await temporaryFolder(t);
  const path = join(folder, "model.GGUF");
  await convert(join(fixtures, "llama-tied"), path);
  const notes: string[] = [];
  const places = placesOf({ cacheDir: join(folder, "cache"), onNote: (note) => notes.push(note) });
  const opened = await openModel(path, opening(places));
  assert.equal(opened.name, path);
  assert.equal((await openModel(path, opening(places))).folder, opened.folder);
  assert.equal(notes.length, 1);
  // With another tokenizer it is another model.
  await copyFile(join(tinyGpt2, "tokenizer.json"), join(folder, "tokenizer.json"));
  const other = await openModel(path, opening(places));
  assert.notEqual(other.folder, opened.folder);
  assert.equal((await loadTokenizer(other.folder)).vocabSize, 1257);
});

test(
  "a model in several files is one by the name of any, as llama.cpp has it",
  { skip },
  async (t) => {
    const folder = await temporaryFolder(t);
    const at = (name: string) => join(folder, name);
    const [metadata, tensors] = await converted(join(fixtures, "llama"));
    await writeGguf(at("whole.gguf"), metadata, tensors);
    const names = [1, 2, 3].map((number) => at(`model-0000${number}-of-00003.gguf`));
    const entries = [...tensors];
    const third = Math.ceil(entries.length / 3);
    for (const [i, name] of names.entries()) {
      const part = {
        ...(i === 0 && metadata),
        "split.no": { u16: i },
        "split.count": { u16: 3 },
        "split.tensors.count": { i32: entries.length },
      };
      await writeGguf(name, part, new Map(entries.slice(i * third, (i + 1) * third)));
    }
    const made = await folderOfGguf(names[1]!, at("cache"));
    assert.equal(await folderOfGguf(names[0]!, at("cache")), made);
    const weights = (path: string) => readFile(join(path, "model.safetensors"));
    const whole = await folderOfGguf(at("whole.gguf"), at("cache"));
    assert.notEqual(whole, made);
    assert.deepEqual(await weights(made), await weights(whole));
    const ids = [[1, 2, 3, 4]];
    const [a, b] = [at("a.logits"), at("b.logits")];
    await llamaCpp([
      { logits: names[0]!, ids, to: a },
      { logits: at("whole.gguf"), ids, to: b },
    ]);
    assert.deepEqual(await readFile(a), await readFile(b));
    await copyFile(names[1]!, names[2]!);
    await assert.rejects(
      folderOfGguf(names[0]!, at("cache")),
      /its other parts have \d+ tensors of/,
    );
    await rm(names[2]!);
    await assert.rejects(folderOfGguf(names[0]!, at("cache")), /model-00003-of-00003.gguf/);
  },
);

test("what is wrong with a GGUF file is said in a sentence", async (t) => {
  const folder = await temporaryFolder(t);
  const path = join(folder, "model.gguf");
  const weight = { shape: [2, 32], data: new Uint8Array(256) };
  const metadata: Metadata = { "general.architecture": "llama" };
  const whole = gguf(metadata, new Map([["token_embd.weight", weight]]));
  const set = (offset: number, ...bytes: number[]) => {
    const changed = Buffer.from(whole);
    changed.set(bytes, offset);
    return changed;
  };
  const sizes = "block_count embedding_length feed_forward_length context_length";
  const u32 = sizes.split(" ").map((key) => [`llama.${key}`, { u32: 4 }] as const);
  const sized = {
    ...metadata,
    ...Object.fromEntries(u32),
    "llama.attention.head_count": { u32: 2 },
  };
  const typed = (type: number) =>
    gguf(metadata, new Map([["token_embd.weight", { ...weight, type }]]));
  const cases: readonly (readonly [Uint8Array, RegExp])[] = [
    [Buffer.from("PK\x03\x04zip"), /is not a GGUF file: it begins with "PK/],
    [Buffer.alloc(0), /is not a GGUF file/],
    [set(4, 1), /GGUF of version 1; 2 and 3 are read/],
    [set(4, 0, 0, 0, 3), /GGUF of version 50331648.*\n.*little-endian/],
    [set(8, ...Array<number>(8).fill(255)), /damaged GGUF file: the number of tensors would be 18/],
    [set(24, ...Array<number>(7).fill(255)), /damaged GGUF file: the length of a key would be/],
    [whole.subarray(0, 50), /damaged GGUF file: it ends within its header\nis the file complete/],
    [whole.subarray(0, -32), /"token_embd.weight" would end at byte \d+ of \d+/],
    [typed(11), /"token_embd.weight" is Q3_K, which ssa does not read\ntake a file of another/],
    [typed(99), /"token_embd.weight" is of the unknown type 99/],
    [typed(14), /has rows of no whole blocks of 256/],
    [gguf({ "general.architecture": "mamba" }, new Map()), /the architecture "mamba" is not supp/],
    [
      gguf({ ...metadata, "split.count": { u16: 3 } }, new Map()),
      /is one of 3 files of a model, by its content\nkeep llama.cpp's names/,
    ],
    [
      gguf({ ...metadata, "tokenizer.ggml.model": "rwkv" }, new Map()),
      /its tokenizer is of the kind "rwkv".*\nput the tokenizer.json/,
    ],
    [
      gguf(
        {
          ...metadata,
          "tokenizer.ggml.model": "llama",
          "tokenizer.ggml.tokens": ["a"],
        },
        new Map(),
      ),
      /its tokenizer has no score for each piece/,
    ],
    [
      gguf({ ...metadata, "tokenizer.ggml.model": "gpt2" }, new Map()),
      /its tokenizer cuts words by the rule "default"/,
    ],
    [gguf(metadata, new Map()), /"hidden_size" is missing/],
    [
      gguf(sized, new Map(["token_embd.weight", "blk.0.ssm_a"].map((name) => [name, weight]))),
      /"blk.0.ssm_a" is of no model that ssa reads/,
    ],
  ];
  for (const [bytes, message] of cases) {
    await writeFile(path, bytes);
    const error: unknown = await folderOfGguf(path, join(folder, "cache")).catch(
      (error: unknown) => error,
    );
    assert.ok(error instanceof UserError, String(error));
    assert.match([error.message, error.hint ?? ""].join("\n"), message);
  }
});
