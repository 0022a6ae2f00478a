import assert from "node:assert/strict";
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { test } from "node:test";
import { type ConventionName, windowRule } from "../../src/data/windows.ts";
import { loadCorpus } from "../../src/data/corpus.ts";
import { findDataFiles, selectSplit } from "../../src/data/readers/files.ts";
import type { Piece } from "../../src/data/document.ts";
import type { Tokenizer } from "../../src/data/tokenizer/read-tokenizer.ts";
import { loadTokenizer } from "../../src/data/tokenizer/tokenizer.ts";
import { countWords, detokenize, wikitextPages } from "../../src/data/readers/wikitext.ts";
import { evaluationWindows } from "../../src/data/windows.ts";
import { decode, encode, kinds, writeTokenizer } from "./tiny-tokenizers.ts";
import { sharedFolder } from "../helpers.ts";

const tokenizer = await loadTokenizer(await writeTokenizer(kinds["byte-level (GPT-2)"]!.json));

/** Rows as WikiText has them: with their line ends, blank ones empty. */
async function rowsByConvention(
  name: ConventionName,
  rows: readonly string[],
  maxContext: number,
  own: Partial<Tokenizer> = {},
) {
  const folder = sharedFolder();
  await writeFile(join(folder, "a.jsonl"), rows.map((text) => JSON.stringify({ text })).join("\n"));
  const split = selectSplit(await findDataFiles(join(folder, "a.jsonl")), "evaluation");
  const corpus = await loadCorpus(split, { ...tokenizer, ...own }, { convention: name });
  const rule = windowRule(name, maxContext);
  const windows = [...evaluationWindows(corpus.texts, rule)];
  const spans = windows.map(({ start, length, scoreFrom }) => [
    start,
    start + length,
    start + scoreFrom,
  ]);
  return {
    texts: corpus.texts.map(({ tokens }) => decode(tokenizer, tokens)),
    spans,
    corpus,
  };
}

// With no merge between them, x and y are a token each: "x\n\n\nx\n" and so on can be counted by hand.
const rows = ["xy\n", "", "yx\n"];

test("hf-disjoint: rows joined by blank lines, windows of the model's length", async () => {
  const { texts, spans, corpus } = await rowsByConvention("hf-disjoint", rows, 4);
  assert.deepEqual(texts, ["xy\n\n\n\n\nyx\n"]);
  assert.equal(corpus.numTokens, encode(tokenizer, "xy\n\n\n\n\nyx\n").length);
  assert.deepEqual(spans.slice(0, 2), [
    [0, 4, 1],
    [4, 8, 5],
  ]);
});

test("hf-stride: windows that advance by 512", async () => {
  const { spans } = await rowsByConvention("hf-stride", ["x".repeat(2000)], 1024);
  assert.deepEqual(spans, [
    [0, 1024, 1],
    [512, 1536, 1024],
    [1024, 2000, 1536],
  ]);
  await assert.rejects(rowsByConvention("hf-stride", rows, 256), { name: "UserError" });
});

test("gptq: blocks of 2,048 or what the model takes, the partial one dropped", async () => {
  const { spans } = await rowsByConvention("gptq", ["x".repeat(5000)], 4096);
  assert.deepEqual(spans, [
    [0, 2048, 1],
    [2048, 4096, 2049],
  ]);
  assert.equal(windowRule("gptq", 1024).context, 1024);
});

test("lm-eval: pages behind an end-of-text token, every token scored, words of the original", async () => {
  const page = [" = A = \n", "", " x @-@ y \n", " = = B = = \n", " x . y \n"];
  const { texts, spans, corpus } = await rowsByConvention(
    "lm-eval",
    [...page, " = C = \n", " y \n"],
    4,
  );
  const [endOfText] = [decode(tokenizer, [tokenizer.endOfText!])];
  assert.deepEqual(texts, [`${endOfText} = A =\n\nx-y\n== B ==\nx. y `, `${endOfText} = C =\ny\n`]);
  // Split at runs of spaces, as Python does, also before the first and after the last word.
  // "", =, A, =, x, @-@, y, =, =, B, =, =, x, ., y, "" and "", =, C, =, y, "".
  assert.equal(corpus.numWords, 16 + 6);
  assert.equal(corpus.utf8Bytes, page.join("").length + " \n".length - 1 + " = C = \n y \n".length);
  const length = corpus.texts[1]!.tokens.length;
  const last = spans.at(-1)!;
  assert.deepEqual([last[0], last[1]], [length - 5, length]);
  const scored = spans.reduce((sum, [, end, from]) => sum + end! - from!, 0);
  assert.equal(scored, corpus.numTokens - 2);
});

test("lm-eval: a tokenizer's own prefix is kept instead, and BOS goes before EOS", async () => {
  const prefix = async (name: ConventionName, own: Partial<Tokenizer>) => {
    const { tokens } = (await rowsByConvention(name, ["xy"], 4, own)).corpus.texts[0]!;
    return [...tokens].slice(0, tokens.length - encode(tokenizer, "xy").length);
  };
  assert.deepEqual(await prefix("lm-eval", { prefix: [3], beginOfText: 4 }), [3]);
  assert.deepEqual(await prefix("lm-eval", { beginOfText: 4 }), [4]);
  assert.deepEqual(await prefix("lm-eval", { endOfText: undefined }), []);
  assert.deepEqual(await prefix("gptq", {}), []);
});

test("pages begin at level-one headings, wherever the stream is cut", async () => {
  const text =
    "intro \n = One = \n\n = = Part = = \n = = = Deep = = = \n body \n = Two = \n end \n";
  const expected = [
    "intro ",
    " = One = \n\n = = Part = = \n = = = Deep = = = \n body ",
    " = Two = \n end \n",
  ];
  for (const size of [1, 3, 7, 100]) {
    const pieces: Piece[] = [];
    for (let at = 0; at < text.length; at += size) {
      pieces.push({
        text: text.slice(at, at + size),
        isTarget: true,
        isLast: at + size >= text.length,
      });
    }
    const pages: (string | undefined)[] = [];
    for await (const { original } of wikitextPages.of(pieces)) pages.push(original);
    assert.deepEqual(pages, expected);
  }
  // The same as rows of lines, blank ones emptied, and as rows of pages without the line ends between them.
  const lines = text.match(/.*\n/g)!.map((line) => (line === "\n" ? "" : line));
  for (const rows of [lines, expected]) {
    const pages: (string | undefined)[] = [];
    for await (const { original } of wikitextPages.of(
      rows.map((row) => ({ text: row, isTarget: true, isLast: true })),
    )) {
      pages.push(original?.replaceAll(" \n \n", " \n\n"));
    }
    assert.deepEqual(pages, expected);
  }
});

test("the spacing of WikiText is undone, in the reference's order and with its mistakes", () => {
  const examples: readonly (readonly [string, string])[] = [
    ["the girls ' school", "the girls' school"],
    ["a well @-@ known 1 @,@ 234 @.@ 5", "a well-known 1,234.5"],
    ["one : two ; three . four ! five ? six , seven", "one: two; three. four! five? six, seven"],
    ["end .", "end ."], // only between spaces
    ["( a ( b ) c )", "(a ( b) c )"], // up to the first closing one
    ["[ 1 ] and { 2 }", "[1] and {2}"],
    ['he said " yes " and " no "', 'he said "yes" and "no"'],
    ["the ' big ' one", "the 'big' one"],
    ["= = = = a = = = =", "====a ====".replace("a", " a")],
    [" = = b = = \n", " == b ==\n"],
    ["5 \u00b0 C", "5\u00b0C"],
    ["a \n b", "a\nb"],
    ["about N men", "about 1 men"],
    ["it 's", "it's"],
    ["/' 5/", "/'[0-9]/"],
    ["( \ufeff a )", "(\ufeff a)"], // no space to Python
  ];
  for (const [from, to] of examples) assert.equal(detokenize(from), to);
});

test("words are counted as Python splits", () => {
  assert.equal(countWords("a  b\u00a0c\u001cd\u0085e\ufefff"), 5);
  assert.equal(countWords(" a "), 3);
  assert.equal(countWords(""), 1);
});
