import assert from "node:assert/strict";
import { existsSync } from "node:fs";
import { readFile, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { test } from "node:test";
import fc from "fast-check";
import type { Piece } from "../../src/data/document.ts";
import { tokenizingJobs } from "../../src/data/tokenizer/tokenize.ts";
import { loadTokenizer } from "../../src/data/tokenizer/tokenizer.ts";
import { Tokenizer as Reference } from "tokenizers";
import { encode, kinds, mark, tokensOf, withIds, writeTokenizer } from "./tiny-tokenizers.ts";

const shared = join(import.meta.dirname, "../../../shared/data");
const skip = existsSync(shared) ? false : `${shared} is absent`;

// Everything that has broken a tokenizer before, and words that the tiny ones have merges for.
const snippets = Array.of(
  ...Array.from("aehnst.,;:'\"()-123 \n\t\r"),
  ..." then| the|The end| hen's|they'll|'s|'ve|  |   |     |\r\n|\n\n|. | .|e |n ".split("|"),
  "<|endoftext|>",
  "<|endo",
  "|>",
  "t|",
  mark,
  `${mark}the`,
  ...Array.from("\u0301\u00a0\u0085\ufeff\u2003\u0958\u212b\u200d\u0000éßſ字。한🙂𝒳—½٣_"),
  "e\u0301",
  "\u1112\u1161",
  "👩‍👩‍👧",
  "\ud83d",
  "’s",
);
// The reference knows marks and punctuation up to Unicode 8 or so, Node newer ones: those above stand for them.
const reclassified = /[\p{M}\p{P}]/u;
const texts = fc
  .array(
    fc.oneof(
      { weight: 9, arbitrary: fc.constantFrom(...snippets) },
      fc.string({ unit: "binary" }).filter((text) => !reclassified.test(text)),
    ),
  )
  .map((parts) => parts.join(""));

// A longer run: FUZZ_TOKENIZER=100000 texts of each kind.
const numRuns = Number(process.env["FUZZ_TOKENIZER"] ?? 150);

/** What Hugging Face's own Rust library gives, which Python uses. */
function reference(json: object): (text: string) => Promise<number[]> {
  const tokenizer = Reference.fromString(JSON.stringify(json));
  return async (text) => (await tokenizer.encode(text, null, { addSpecialTokens: false })).getIds();
}

for (const [name, { json, expectsCuts }] of Object.entries(kinds)) {
  test(`${name}: the tokens are those of the reference`, async () => {
    const tokenizer = await loadTokenizer(await writeTokenizer(json));
    const expected = reference(json);
    // Before " dog", at the least, in each of them.
    assert.equal(tokenizer.cuts?.isCut("it was his dog", 10), expectsCuts || undefined);
    await fc.assert(
      fc.asyncProperty(texts, async (text) => {
        assert.deepEqual([...encode(tokenizer, text)], await expected(text));
      }),
      { numRuns, seed: 1 },
    );
  });

  test(`${name}: a stream cut anywhere, of prompts and answers, gives the tokens of the whole text`, async () => {
    const tokenizer = await loadTokenizer(await writeTokenizer(json));
    await fc.assert(
      fc.asyncProperty(
        fc.array(fc.tuple(texts, fc.boolean()), { maxLength: 6 }),
        fc.boolean(),
        fc.integer({ min: 1, max: 30 }),
        async (parts, hasPrompts, size) => {
          const pieces: Piece[] = parts.map(([text, flag]) => {
            return { text, isTarget: !hasPrompts || flag, isLast: false };
          });
          const ids: number[] = [];
          const ends: boolean[] = [];
          for await (const job of tokenizingJobs(
            [...pieces, { text: "", isTarget: true, isLast: true }],
            tokenizer.cuts,
            size,
          )) {
            const encoded = tokenizer.encode(job);
            ids.push(...encoded.ids);
            ends.push(...job.map(({ isLast }) => isLast));
            assert.equal(encoded.lengths.length, job.length);
            const numTokens = encoded.lengths.reduce((sum, length) => sum + length, 0);
            assert.equal(numTokens, encoded.ids.length);
          }
          const whole = pieces.map(({ text }) => text).join("");
          assert.deepEqual(ids, [...encode(tokenizer, whole)]);
          assert.equal(ends.filter(Boolean).length, 1);
        },
      ),
      { numRuns: 100 },
    );
  });
}

test("an old file that does not say what it is is what the reference takes it for", async () => {
  for (const name of ["whole words", "longest pieces (BERT)", "byte-level (GPT-2)"]) {
    const { model, ...json } = kinds[name]!.json as { model: { type: string } };
    const { type: _, ...untyped } = model;
    const old = { ...json, model: untyped };
    const text = "The hen's eggs and then the old dogs";
    const tokenizer = await loadTokenizer(await writeTokenizer(old));
    assert.deepEqual([...encode(tokenizer, text)], await reference(old)(text), name);
  }
});

test("what the tokenizer itself puts around a text is found as the reference adds it", async () => {
  const flags = { single_word: false, lstrip: false, rstrip: false, normalized: false };
  const json = withIds({
    ...kinds["byte-level (GPT-2)"]!.json,
    added_tokens: ["<s>", "</s>"].map((content) => ({ content, ...flags, special: true })),
  });
  const [bos, eos] = json.added_tokens.map(({ id }) => id) as [number, number];
  const special = (id: string) => ({ SpecialToken: { id, type_id: 0 } });
  const text = { Sequence: { id: "A", type_id: 0 } };
  const ids = { "<s>": bos, "</s>": eos };
  const template = (...single: readonly object[]) => ({
    type: "TemplateProcessing",
    single,
    pair: [],
    special_tokens: Object.fromEntries(
      Object.entries(ids).map(([id, each]) => [id, { id, ids: [each], tokens: [id] }]),
    ),
  });
  const front = template(special("<s>"), text);
  const bytes = { type: "ByteLevel", add_prefix_space: true, trim_offsets: true, use_regex: true };
  const classes = { sep: ["</s>", eos], cls: ["<s>", bos] };
  const configured = { bos_token: "<s>", eos_token: { content: "</s>" } };
  const cases: readonly (readonly [object | null, number[], number[], object?])[] = [
    [null, [], []],
    [bytes, [], []],
    [front, [bos], []],
    [template(special("<s>"), special("</s>"), text, special("</s>")), [bos, eos], [eos]],
    [template(text, special("</s>")), [], [eos]],
    [{ type: "Sequence", processors: [bytes, front] }, [bos], []],
    [
      { type: "RobertaProcessing", ...classes, trim_offsets: true, add_prefix_space: true },
      [bos],
      [eos],
    ],
    // What tokenizer_config.json says of it counts more.
    [null, [bos], [], { ...configured, add_bos_token: true, add_eos_token: false }],
    [front, [bos], [eos], { ...configured, add_bos_token: true, add_eos_token: true }],
    [front, [], [], { ...configured, add_bos_token: false }],
  ];
  for (const [processor, prefix, suffix, config] of cases) {
    const whole = { ...json, post_processor: processor };
    const tokenizer = await loadTokenizer(await writeTokenizer(whole, config));
    assert.deepEqual([tokenizer.prefix, tokenizer.suffix], [prefix, suffix]);
    const [one] = await tokensOf([{ text: "hen", isTarget: true, isLast: true }], tokenizer, {
      prefix,
    });
    const tokens = one!;
    assert.deepEqual(tokens, [...prefix, ...encode(tokenizer, "hen"), ...suffix]);
    if (config) continue;
    const full = await Reference.fromString(JSON.stringify(whole)).encode("hen");
    assert.deepEqual(tokens, full.getIds());
  }
});

test("end of text is the configured token, else one of the usual names; the highest id sizes the vocabulary", async () => {
  const { json } = kinds["byte-level (GPT-2)"]!;
  const added = [{ id: 329, content: "<end>", special: true }];
  const more = { ...json, added_tokens: added };
  const configured = { eos_token: { content: "<end>", __type: "AddedToken" } };
  const withConfig = await loadTokenizer(await writeTokenizer(more, configured));
  const without = await loadTokenizer(await writeTokenizer(more));
  assert.deepEqual([withConfig.endOfText, withConfig.vocabSize], [329, 330]);
  assert.equal(without.endOfText, 0);
  assert.notEqual(without.sha256, withConfig.sha256);
});

test("vocab.json and merges.txt, without the file that took their place, are GPT-2's tokenizer", async () => {
  const { json } = kinds["byte-level (GPT-2)"]!;
  const { vocab, merges } = (
    json as { model: { vocab: object; merges: readonly (readonly [string, string])[] } }
  ).model;
  const folder = await writeTokenizer(json, { eos_token: "<|endoftext|>" });
  const expected = await loadTokenizer(folder);
  await rm(join(folder, "tokenizer.json"));
  await writeFile(join(folder, "vocab.json"), JSON.stringify(vocab));
  const lines = ["#version: 0.2", ...merges.map((pair) => pair.join(" ")), ""];
  await writeFile(join(folder, "merges.txt"), lines.join("\n"));
  const tokenizer = await loadTokenizer(folder);
  const text = "The hen's eggs<|endoftext|> 字";
  assert.deepEqual(encode(tokenizer, text), encode(expected, text));
  assert.notEqual(tokenizer.sha256, expected.sha256);
  await rm(join(folder, "merges.txt"));
  await assert.rejects(loadTokenizer(folder), /holds no tokenizer\.json/);
});

test("tokens that only tokenizer_config.json names are found in texts", async () => {
  const { json } = kinds["byte-level (GPT-2)"]!;
  const vocabSize = Object.keys((json as { model: { vocab: object } }).model.vocab).length;
  const config = {
    added_tokens_decoder: { [vocabSize]: { content: "<|im_start|>", special: true } },
    eos_token: "hen",
    pad_token: "[PAD]",
  };
  const tokenizer = await loadTokenizer(await writeTokenizer(json, config));
  const hen = encode(tokenizer, "hen");
  assert.equal(hen.length, 1);
  assert.equal(tokenizer.endOfText, hen[0]);
  const ids = [...encode(tokenizer, "<|im_start|>hen[PAD]")];
  assert.deepEqual(ids, [vocabSize, tokenizer.endOfText, tokenizer.vocabSize - 1]);
});

test("a folder without a tokenizer, or with a broken one, is the user's matter", async () => {
  await assert.rejects(loadTokenizer("/nowhere"), {
    name: "UserError",
    message: /\/nowhere holds no tokenizer\.json/,
  });
  const folder = await writeTokenizer({});
  await assert.rejects(loadTokenizer(folder), {
    name: "UserError",
    message: /no tokenizer that can be used/,
  });
  const unknown = { ...kinds["replaced marks"]!.json, normalizer: { type: "Nonsense" } };
  const late = await loadTokenizer(await writeTokenizer(unknown));
  assert.throws(() => encode(late, "a"), {
    name: "UserError",
    message: /normalizer is of the type "Nonsense"/,
  });
  await writeFile(join(folder, "tokenizer.json"), "{");
  await assert.rejects(loadTokenizer(folder), { name: "UserError", message: /is not JSON/ });
});

const counts: readonly (readonly [folder: string, file: string, tokens: number])[] = [
  ["tokenizer-gpt2", "tinyshakespeare/input.txt", 338_025],
  ["tokenizer-gpt2", "wikitext-2/train-1mb.txt", 217_565],
  ["stories260k", "tinystories/five-stories.txt", 1_883],
];
for (const [folder, file, expected] of counts) {
  test(
    `${folder} gives ${expected} tokens on ${file}, by one thread and by two`,
    { skip },
    async () => {
      const tokenizer = await loadTokenizer(join(shared, folder));
      const text = await readFile(join(shared, file), "utf8");
      const pieces = [{ text, isTarget: true, isLast: true }];
      const { prefix } = tokenizer;
      const one = await tokensOf(pieces, tokenizer, { prefix });
      const two = await tokensOf(cutUp(text), tokenizer, {
        prefix,
        threads: 2,
        charactersAlone: 0,
      });
      assert.deepEqual(
        one.map(({ length }) => length),
        [expected],
      );
      assert.deepEqual(two, one);
    },
  );
}

test("NeoX and stories260k agree with the reference on whole texts", { skip }, async () => {
  const text = await readFile(join(shared, "wikitext-2/validation-100kb.txt"), "utf8");
  for (const folder of ["tokenizer-neox", "stories260k"]) {
    const tokenizer = await loadTokenizer(join(shared, folder));
    const json = JSON.parse(await readFile(join(shared, folder, "tokenizer.json"), "utf8"));
    assert.deepEqual([...encode(tokenizer, text)], await reference(json)(text));
  }
});

test("tokenizing tells its progress, stops on a signal, and hands on what a thread throws", async () => {
  const tokenizer = await loadTokenizer(await writeTokenizer(kinds["byte-level (GPT-2)"]!.json));
  const text = "the hen and the dog ".repeat(60_000);
  const seen: number[] = [];
  await tokensOf(cutUp(text), tokenizer, {
    prefix: [],
    onProgress: ({ characters }) => seen.push(characters),
  });
  assert.ok(seen.length > 2);
  assert.equal(seen.at(-1), text.length);

  const controller = new AbortController();
  const onProgress = () => controller.abort();
  await assert.rejects(
    tokensOf(cutUp(text), tokenizer, { prefix: [], onProgress, signal: controller.signal }),
    { name: "AbortError" },
  );

  const moved = { ...tokenizer, folder: "/nowhere" };
  await assert.rejects(
    tokensOf(cutUp(text), moved, { prefix: [], threads: 2, charactersAlone: 0 }),
    /nowhere holds no tokenizer/,
  );
});

test("each text has the prefix once, and texts without tokens are left out", async () => {
  const tokenizer = await loadTokenizer(await writeTokenizer(kinds["byte-level (GPT-2)"]!.json));
  const rows = ["the", "", "dog"].map((text) => ({ text, isTarget: true, isLast: true }));
  const texts = await tokensOf(rows, tokenizer, { prefix: [7] });
  const [the, dog] = [[...encode(tokenizer, "the")], [...encode(tokenizer, "dog")]];
  assert.deepEqual(texts, [
    [7, ...the],
    [7, ...dog],
  ]);
});

function* cutUp(text: string): Generator<Piece> {
  const size = 100_000;
  for (let at = 0; at < text.length; at += size) {
    yield { text: text.slice(at, at + size), isTarget: true, isLast: at + size >= text.length };
  }
}
