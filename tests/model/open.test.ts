// What config.json and the stored tensors may say, and how anything else is refused.

import assert from "node:assert/strict";
import { copyFile, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { test, type TestContext } from "node:test";
import { packageRoot } from "../../src/files/package-root.ts";
import { openModel } from "../../src/model/open.ts";
import { tokenizerOf } from "../../src/model/places.ts";
import { UserError } from "../../src/core/errors.ts";
import { openSafetensors, readBytes, writeSafetensors } from "../../src/files/safetensors.ts";
import { sharedData, skipWithout, temporaryFolder } from "../helpers.ts";

const fixtures = new URL("../fixtures/", import.meta.url).pathname;

type Json = Record<string, unknown>;
type Tensor = { name: string; dtype: "F32"; shape: readonly number[]; data: Uint8Array };

/** A copy of a fixture with another config or other tensors. */
async function altered(
  t: TestContext,
  variant: string,
  {
    config = (c) => c,
    tensors = (list) => list,
  }: {
    readonly config?: (config: Json) => Json;
    readonly tensors?: (tensors: Tensor[]) => Tensor[];
  },
): Promise<string> {
  const folder = await temporaryFolder(t);
  const source = join(fixtures, variant);
  const json = JSON.parse(await readFile(join(source, "config.json"), "utf8")) as Json;
  await writeFile(join(folder, "config.json"), JSON.stringify(config(json)));
  const stored = [...(await openSafetensors(source)).tensors.values()];
  const copies = stored
    .filter(({ dtype }) => dtype === "F32")
    .map(async (info) => {
      return {
        name: info.name,
        dtype: "F32" as const,
        shape: info.shape,
        data: await readBytes(info),
      };
    });
  await writeSafetensors(join(folder, "model.safetensors"), tensors(await Promise.all(copies)));
  return folder;
}

test("newer spellings of a config mean the same", async (t) => {
  const plain = await openModel(join(fixtures, "gpt_neox"));
  const folder = await altered(t, "gpt_neox", {
    config: ({ rotary_pct, rotary_emb_base, torch_dtype, ...rest }) => ({
      ...rest,
      dtype: torch_dtype,
      rope_parameters: {
        rope_type: "default",
        rope_theta: rotary_emb_base ?? 10000,
        partial_rotary_factor: rotary_pct,
      },
    }),
  });
  assert.deepEqual((await openModel(folder)).model.config, plain.model.config);
});

const refusals: readonly [string, string, Json, RegExp][] = [
  ["another architecture", "llama", { model_type: "falcon" }, /"falcon" is not supported/],
  ["a sliding window", "llama", { sliding_window: 4096 }, /sliding_window = 4096 is not supported/],
  ["another rope", "llama", { rope_scaling: { rope_type: "ntk", factor: 4 } }, /rope type "ntk"/],
  [
    "a quantized checkpoint",
    "llama",
    { quantization_config: { bits: 4 } },
    /of quant_method \(absent\) are not/,
  ],
  [
    "another activation",
    "gpt2",
    { activation_function: "relu6" },
    /config\.json: activation "relu6" is not/,
  ],
  ["cross-attention", "gpt2", { add_cross_attention: true }, /add_cross_attention/],
  ["heads that do not divide", "gpt2", { n_head: 5 }, /not a multiple of 5/],
  [
    "a number in quotes",
    "gpt2",
    { n_embd: "18" },
    /"n_embd" must be a positive integer, found "18"/,
  ],
  ["a negative base", "llama", { rope_theta: -1e4 }, /"rope_theta" must be a positive number/],
  ["a head that turns more than whole", "gpt_neox", { rotary_pct: 2 }, /must be even, at most/],
  ["layers beyond count", "qwen2", { num_hidden_layers: 2 ** 53 }, /integer of at most 10000,/],
  ["heads beyond memory", "llama", { head_dim: 2 ** 30 }, /heads of 1073741824 dimensions/],
  [
    "equal frequencies",
    "llama3",
    {
      rope_scaling: { rope_type: "llama3", factor: 8, low_freq_factor: 2, high_freq_factor: 2 },
    },
    /high_freq_factor must be above low_freq_factor/,
  ],
  ["a name of every object", "llama", { rope_parameters: { toString: 1 } }, /toString = 1 is not/],
  ["a missing number", "gpt2", { n_layer: null }, /"n_layer" is missing/],
];

for (const [what, variant, change, message] of refusals)
  test(`${what} is refused by name`, async (t) => {
    const folder = await altered(t, variant, { config: (config) => ({ ...config, ...change }) });
    await assert.rejects(openModel(folder), (error) => {
      assert.ok(error instanceof UserError);
      assert.match(error.message, message);
      return true;
    });
  });

test("missing, unexpected and misshapen tensors are all named", async (t) => {
  const folder = await altered(t, "llama", {
    tensors: (list) =>
      list.map((tensor) => {
        if (tensor.name === "model.norm.weight") return { ...tensor, name: "model.nrom.weight" };
        const { shape } = tensor;
        return tensor.name === "lm_head.weight" ? { ...tensor, shape: shape.toReversed() } : tensor;
      }),
  });
  await assert.rejects(openModel(folder), (error: Error) => {
    assert.match(error.message, /missing: model\.norm\.weight \(is model\.nrom\.weight it\?\)/);
    assert.match(error.message, /unexpected: model\.nrom\.weight/);
    assert.match(error.message, /lm_head\.weight is \[\d+, \d+\], expected \[\d+, \d+\]/);
    return true;
  });
});

test("a tied head that is stored as well is ignored", async (t) => {
  const folder = await altered(t, "gpt2", {
    tensors: (list) => {
      const embedding = list.find(({ name }) => name === "transformer.wte.weight")!;
      return [...list, { ...embedding, name: "lm_head.weight" }];
    },
  });
  const { weights } = await openModel(folder);
  assert.ok(!weights.has("lm_head.weight"));
});

for (const [variant, prefix] of [
  ["llama", "model."],
  ["mistral", "model."],
  ["gpt_neox", "gpt_neox."],
] as const)
  test(`${variant} saved without its prefix and with rotary tables is the same model`, async (t) => {
    const folder = await altered(t, variant, {
      tensors: (list) => {
        const table = { dtype: "F32" as const, shape: [1], data: new Uint8Array(4) };
        const tables = ["cos_cached", "sin_cached", "inv_freq"].map((name) => ({
          ...table,
          name: `layers.0.attention.rotary_emb.${name}`,
        }));
        const isWeight = ({ name }: Tensor) => !/rotary_emb|masked_bias/.test(name);
        const bare = (name: string) => name.replace(prefix, "");
        return [...list.filter(isWeight).map((x) => ({ ...x, name: bare(x.name) })), ...tables];
      },
    });
    const [{ weights }, plain] = [
      await openModel(folder),
      await openModel(join(fixtures, variant)),
    ];
    assert.deepEqual([...weights.keys()].sort(), [...plain.weights.keys()].sort());
    for (const [name, { shape }] of weights)
      assert.deepEqual(shape, plain.weights.get(name)!.shape);
  });

test("an adapter is refused on a base of another shape", async (t) => {
  const folder = await temporaryFolder(t);
  const adapter = join(fixtures, "gpt2/ssa/default");
  for (const name of ["ssa_adapter.safetensors", "ssa_config.json"])
    await copyFile(join(adapter, name), join(folder, name));
  await assert.rejects(
    openModel(join(fixtures, "llama"), { adapter: folder }),
    /temperature .* missing/,
  );
});

test("a wrapper's prefix is one problem, and so is a wrong number of layers", async (t) => {
  const wrapped = await altered(t, "llama", {
    tensors: (list) => list.map((tensor) => ({ ...tensor, name: `_orig_mod.${tensor.name}` })),
  });
  await assert.rejects(
    openModel(wrapped),
    /: all \d+ tensors have "_orig_mod\." before their names$/,
  );
  const layers = (n_layer: number) =>
    altered(t, "gpt2", { config: (config) => ({ ...config, n_layer }) });
  await assert.rejects(openModel(await layers(9999)), /has 9999 layers, the checkpoint 2 layers$/);
});

test("a tied head that is stored and differs is refused", async (t) => {
  const folder = await altered(t, "gpt2", {
    tensors: (list) => {
      const embedding = list.find(({ name }) => name === "transformer.wte.weight")!;
      const data = embedding.data.slice();
      data[data.length - 1]! ^= 1;
      return [...list, { ...embedding, data, name: "lm_head.weight" }];
    },
  });
  await assert.rejects(openModel(folder), /ties the embeddings, but lm_head\.weight differs from/);
});

for (const name of ["index-lists-absent-inv-freq", "index-lists-absent-tied-head"]) {
  const folder = join(sharedData(), "../cases", name);
  test(
    `${name}: a weight is what a model cannot do without`,
    { skip: skipWithout(folder) },
    async () => {
      const { model, weights } = await openModel(folder);
      assert.equal(weights.size, model.weights.size);
    },
  );
}

test("a model's tokenizer is read once for all that asks, and of its own folder", async (t) => {
  const { folder } = await openModel(join(packageRoot(), "checkpoints/tiny-gpt2"));
  const other = await temporaryFolder(t);
  for (const name of ["config.json", "tokenizer.json"])
    await copyFile(join(folder, name), join(other, name));
  // Neither has weights, so nothing else that would tell them apart.
  const [one, two] = await Promise.all(
    [folder, other].map((path) => openModel(path, { withoutWeights: true })),
  );
  const first = await tokenizerOf(one!);
  assert.equal(await tokenizerOf({ ...one! }), first);
  assert.deepEqual([first.folder, (await tokenizerOf(two!)).folder], [folder, other]);
});
