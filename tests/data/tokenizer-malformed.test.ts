// Files that are damaged or hostile: each is refused in one sentence that names the file, or works; none hangs.

import assert from "node:assert/strict";
import { readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { test } from "node:test";
import fc from "fast-check";
import { UserError } from "../../src/core/errors.ts";
import { loadTokenizer } from "../../src/data/tokenizer/tokenizer.ts";
import { encode, kinds, writeTokenizer } from "./tiny-tokenizers.ts";

const sample = "The hen's eggs <|endoftext|> 12 é\n  字";
const tiny = kinds["byte-level (GPT-2)"]!.json as {
  readonly model: { readonly vocab: Readonly<Record<string, number>> };
};
const end = { id: 0, content: "<|endoftext|>", special: true };

test("a wrong entry is named", async () => {
  const vocab = (changes: object) => ({
    ...tiny,
    model: { ...tiny.model, vocab: { ...tiny.model.vocab, ...changes } },
  });
  const added = (...tokens: readonly object[]) => ({ ...tiny, added_tokens: tokens });
  const cases: readonly (readonly [object, RegExp])[] = [
    [vocab({ the: null }), /model\.vocab gives "the" the id null, which is no whole number/],
    [vocab({ the: 2.5 }), /model\.vocab gives "the" the id 2\.5, which/],
    [vocab({ the: "5" }), /model\.vocab gives "the" the id "5", which/],
    [vocab({ the: -1 }), /model\.vocab gives "the" the id -1, which/],
    [vocab({ zzz: 5 }), /model\.vocab gives "zzz" the id 5, which "." has/],
    [added({ ...end, id: undefined }), /added_tokens\[0\]\.id: .* expected number, received undef/],
    [added({ ...end, content: undefined }), /added_tokens\[0\]\.content: .* expected string/],
    [added(end, { ...end, id: 999 }), /added_tokens gives .* the id 999, and elsewhere 0/],
    [added(end, { ...end, content: "x" }), /added_tokens gives "x" the id 0, which "<\|/],
    // As the reference numbers them: without gaps, and one that comes twice at its first place.
    [
      added({ ...end, id: 330, content: "zzz" }),
      /gives "zzz" the id 330, its place in the list 329$/,
    ],
    [
      added(...[330, 329, 330].map((id) => ({ ...end, id, content: `${id}` }))),
      /gives "330" the id 330, its place in the list 329$/,
    ],
    [{ ...tiny, model: { ...tiny.model, merges: ["a"] } }, /model\.merges has "a", no pair/],
    [{ ...tiny, model: { ...tiny.model, merges: ["a zq"] } }, /model\.merges uses "azq", not in/],
    [{ ...tiny, normalizer: { type: "Nmt" } }, /normalizer is of the type "Nmt", only NFC/],
    [{ ...tiny, decoder: { type: {} } }, /decoder\.type: .* expected string/],
    [{ ...tiny, pre_tokenizer: {} }, /pre_tokenizer\[0\]\.type: .* expected string/],
    [
      { ...tiny, pre_tokenizer: { type: 5 } },
      /pre_tokenizer\[0\]\.type: .* expected string, received number/,
    ],
  ];
  for (const [json, message] of cases) {
    const folder = await writeTokenizer(json);
    const fails = async () => encode(await loadTokenizer(folder), sample);
    await assert.rejects(fails, (error: Error) => {
      assert.ok(error instanceof UserError, error.stack);
      assert.ok(error.message.startsWith(join(folder, "tokenizer.json")), error.message);
      assert.match(error.message, message);
      return true;
    });
  }
});

// A longer run: FUZZ_TOKENIZER=100000.
const numRuns = Number(process.env["FUZZ_TOKENIZER"] ?? 150);
const values = fc.constantFrom(null, true, -1, 2.5, 1e9, "", "x", "(", [], [null], {}, { a: 1 });

/** Puts a value in place of one that is somewhere inside; undefined: takes it away. */
function mutated(json: unknown, path: readonly number[], value: unknown): unknown {
  if (typeof json !== "object" || json === null || path.length === 0) return value;
  const entries = Object.entries(json);
  if (entries.length === 0) return value;
  const at = path[0]! % entries.length;
  const changed = entries.flatMap(([key, inner], i) => {
    const fresh = i === at ? mutated(inner, path.slice(1), value) : inner;
    return fresh === undefined ? [] : [[key, fresh] as const];
  });
  return Array.isArray(json) ? changed.map(([, inner]) => inner) : Object.fromEntries(changed);
}

test("a mutated file works or is refused in one sentence", async () => {
  const folder = await writeTokenizer(tiny, { eos_token: "<|endoftext|>" });
  const files = ["tokenizer.json", "tokenizer_config.json"];
  const before = await Promise.all(files.map((name) => readFile(join(folder, name), "utf8")));
  const path = fc.array(fc.nat(400), { minLength: 1, maxLength: 5 });
  const whole = fc.constantFrom(...Object.values(kinds).map(({ json }) => json));
  const run = async (json: unknown, config: unknown) => {
    await writeFile(join(folder, files[0]!), JSON.stringify(json) ?? "");
    await writeFile(join(folder, files[1]!), JSON.stringify(config) ?? "");
    try {
      const tokenizer = await loadTokenizer(folder);
      encode(tokenizer, sample);
    } catch (error) {
      assert.ok(error instanceof UserError, (error as Error).stack);
      assert.ok(!error.message.includes("\n"), error.message);
      assert.doesNotMatch(error.message, /of undefined|not a function|not iterable/);
    }
  };
  await fc.assert(
    fc.asyncProperty(whole, path, fc.option(values, { nil: undefined }), (json, where, value) =>
      run(mutated(json, where, value), JSON.parse(before[1]!)),
    ),
    { numRuns, seed: 1, includeErrorInReport: true },
  );
  const config = {
    bos_token: "<|endoftext|>",
    eos_token: { content: "<|endoftext|>", special: true },
    add_bos_token: true,
    added_tokens_decoder: { 0: end },
  };
  await fc.assert(
    fc.asyncProperty(path, fc.option(values, { nil: undefined }), (where, value) =>
      run(JSON.parse(before[0]!), mutated(config, where, value)),
    ),
    { numRuns: Math.ceil(numRuns / 4), seed: 1, includeErrorInReport: true },
  );
});

test("an expression that never ends is given up within seconds", async () => {
  const pattern = { Regex: "(?:a+)+(?=!)|[^a]+" };
  const step = { type: "Split", pattern, behavior: "Isolated", invert: false };
  const folder = await writeTokenizer({ ...tiny, pre_tokenizer: step });
  const tokenizer = await loadTokenizer(folder);
  const started = performance.now();
  assert.throws(() => encode(tokenizer, "a".repeat(60)), {
    name: "UserError",
    message: /tokenizer\.json is no tokenizer that can be used: an expression in it takes for ever/,
  });
  assert.ok(performance.now() - started < 20_000);
});
