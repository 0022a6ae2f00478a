// Which tokens belong to a piece of a text, against the places that Hugging Face's own Rust library gives each token.
import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { Tokenizer as Reference } from "tokenizers";
import { tokenize } from "../../src/data/tokenizer/tokenize.ts";
import { loadTokenizer } from "../../src/data/tokenizer/tokenizer.ts";
import { kinds, mark, writeTokenizer } from "./tiny-tokenizers.ts";

// Composition and surrogates at borders, bytes, unknown characters, special tokens, words that are merged over a border.
const snippets = [
  ...Array.from("aehnst.,'(-12 \n\t"),
  ..." then| the|The end| hen's|they'll|'s|  |   |. | .|e |n |the hen|dog".split("|"),
  "<|endoftext|>",
  mark,
  ...Array.from("\u0301éß字🙂½"),
];
const parts = fc.array(
  fc.tuple(
    fc.array(fc.constantFrom(...snippets), { maxLength: 5 }).map((all) => all.join("")),
    fc.boolean(),
  ),
  { minLength: 1, maxLength: 5 },
);

// What is one word or another by what follows it, and spaces that are stripped at an end, have no place before a border.
const unsettled = /every sort|stripped/;

for (const [name, { json }] of Object.entries(kinds).filter(([name]) => !unsettled.test(name)))
  test(`${name}: a token counts where it has a character of what counts`, async () => {
    const tokenizer = await loadTokenizer(await writeTokenizer(json));
    const reference = Reference.fromString(JSON.stringify(json));
    await fc.assert(
      fc.asyncProperty(parts, async (parts) => {
        const pieces = parts.map(([text, isTarget]) => ({ text, isTarget, isLast: false }));
        const whole = parts.map(([text]) => text).join("");
        // The reference takes bytes beside each other for one character.
        fc.pre(!name.includes("scored pieces with bytes") || /^[ a-z]*$/i.test(whole));
        const encoding = await reference.encode(whole, null, { addSpecialTokens: false });
        const end = { text: "", isTarget: true, isLast: true };
        const ids: number[] = [];
        const emit = (part: Iterable<number>) => void ids.push(...part);
        const how = { prefix: [] };
        const { unscored } = await tokenize([...pieces, end], tokenizer, how, emit);
        assert.deepEqual(ids, encoding.getIds());
        if (name.startsWith("byte-level ("))
          assert.equal(tokenizer.spell(Uint32Array.from(ids)).join(""), whole);
        const counts = parts.flatMap(([text, flag]) => Array.from(text, () => flag));
        const characters = Array.from(whole);
        const expected = encoding.getOffsets().map(([from, to], i) => {
          const own = characters.slice(from, to).join("");
          // Spaces that a token swallows around it do not make it count.
          const isBare = tokenizer.pieceOf(encoding.getIds()[i]!) === own.trim();
          const start = from! + (isBare ? own.length - own.trimStart().length : 0);
          const end = to! - (isBare ? own.length - own.trimEnd().length : 0);
          return Number(counts.slice(start, end).some(Boolean));
        });
        const found = ids.map(() => 1);
        for (let i = 0; i < unscored.length; i += 2) found.fill(0, unscored[i], unscored[i + 1]);
        assert.deepEqual(found, expected);
      }),
      { numRuns: 300, seed: 1 },
    );
  });
