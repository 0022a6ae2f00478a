// Small BPE tokenizers of each kind, with merges learnt from a sentence, written as Hugging Face folders.

import { readFileSync } from "node:fs";
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import * as library from "@huggingface/tokenizers";
import type { Corpus } from "../../src/data/corpus.ts";
import type { DocumentStream } from "../../src/data/document.ts";
import { tokenize, type TokenizeOptions } from "../../src/data/tokenizer/tokenize.ts";
import type { Tokenizer } from "../../src/data/tokenizer/read-tokenizer.ts";
import { sharedFolder } from "../helpers.ts";

/** The tokens of a text by itself. */
export function encode(tokenizer: Tokenizer, text: string) {
  return tokenizer.encode([{ text, isTarget: true, isLast: true }]).ids;
}

// Its types name files without their endings, which is to say: none.
const { Tokenizer: HuggingFace } = library as unknown as {
  Tokenizer: new (
    json: object,
    config: object,
  ) => {
    decode: (ids: readonly number[], options: object) => string;
    encode: (text: string) => { readonly ids: readonly number[] };
  };
};

/** The tokens of a text, with what goes around it, as Hugging Face's JavaScript library has it from tokenizer.json alone. */
export const encodedElsewhere = ({ folder }: Tokenizer, text: string) =>
  new HuggingFace(jsonIn(folder), {}).encode(text).ids;

const jsonIn = (folder: string) =>
  JSON.parse(readFileSync(join(folder, "tokenizer.json"), "utf8")) as object;

/** The text of tokens, as Hugging Face's JavaScript library has it. */
export function decode({ folder }: Tokenizer, ids: Iterable<number>): string {
  const list = [...ids];
  const options = { clean_up_tokenization_spaces: false };
  return list.length === 0 ? "" : new HuggingFace(jsonIn(folder), {}).decode(list, options);
}

export const llama3Split = String.raw`(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+`;
const o200kSplit = String.raw`[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+`;
export const mark = "\u2581";

const sample =
  "The hen's eggs, the dog's bone and the cat's tail; they'll meet (again) in 1984 or 2001.\n" +
  '  The End\n\n\tThen there, then here: the same old story - "the hen" and "the dog".\n';

const sampleParts = [
  ...new Set(`${sample} he en hen th`.match(/[A-Za-z]+|\d|[^\sA-Za-z]/g)),
  ...Array.from("aehnst"),
  "字",
];

const byteLevel = { type: "ByteLevel", add_prefix_space: false, trim_offsets: true };
const metaspace = { type: "Metaspace", replacement: mark, prepend_scheme: "first", split: false };
const replace = { type: "Replace", pattern: { String: " " }, content: mark };
const prepend = { type: "Prepend", prepend: mark };
const endOfText = token("<|endoftext|>", { special: true });

const splitAt = (pattern: object, behavior = "Isolated", invert = false) => ({
  type: "Split",
  pattern,
  behavior,
  invert,
});
const split = (regex: string) => splitAt({ Regex: regex });
const sequence = (key: string, ...steps: readonly object[]) => ({ type: "Sequence", [key]: steps });
const bert = {
  type: "BertNormalizer",
  clean_text: true,
  handle_chinese_chars: true,
  strip_accents: null,
  lowercase: true,
};
const oddTokens = [
  endOfText,
  token("then", { single_word: true }),
  token("THE", { normalized: true, lstrip: true }),
  token("dog", { rstrip: true }),
  token("é", { normalized: true }),
  token("é!", { single_word: true, normalized: true }),
  token("a", { single_word: true, lstrip: true, rstrip: true }),
];

/** What tells the kinds apart; `expectsCuts` is what the cut rule should find. */
const made: Readonly<Record<string, { readonly expectsCuts: boolean; readonly json: object }>> = {
  "byte-level (GPT-2)": { expectsCuts: true, json: bytes(byteLevel) },
  "byte-level with NFC and space tokens (GPT-NeoX)": {
    expectsCuts: true,
    json: {
      ...bytes(byteLevel),
      normalizer: { type: "NFC" },
      added_tokens: [
        endOfText,
        ...[2, 3, 5].map((count) => token(" ".repeat(count), { normalized: true })),
      ],
    },
  },
  "byte-level with Llama 3's expression": {
    expectsCuts: true,
    json: bytes(sequence("pretokenizers", split(llama3Split), { ...byteLevel, use_regex: false }), {
      ignore_merges: true,
    }),
  },
  "byte-level after single digits": {
    expectsCuts: true,
    json: bytes(sequence("pretokenizers", { type: "Digits", individual_digits: true }, byteLevel)),
  },
  "byte-level with a prefix space": {
    expectsCuts: false,
    json: bytes({ ...byteLevel, add_prefix_space: true }),
  },
  "byte-level with an unknown expression": {
    expectsCuts: false,
    json: bytes(sequence("pretokenizers", split(String.raw`\w+ \w+|[\s\S]`), byteLevel)),
  },
  "prepended and replaced marks (Llama 2)": {
    expectsCuts: true,
    json: marks({ normalizer: sequence("normalizers", prepend, replace) }),
  },
  "replaced marks": { expectsCuts: true, json: marks({ normalizer: replace }) },
  "marks by the pre-tokenizer": { expectsCuts: true, json: marks({ pre_tokenizer: metaspace }) },
  "marks always put in front": {
    expectsCuts: true,
    json: marks({ pre_tokenizer: { ...metaspace, prepend_scheme: "always" } }),
  },
  "marks at the end of pieces": {
    expectsCuts: true,
    json: marks({ normalizer: replace }, [
      ["e", mark],
      [".", mark],
      ["n", mark],
      ["e", "n"],
      ["en", mark],
    ]),
  },
  "added tokens of every sort": {
    expectsCuts: false,
    json: { ...bytes(byteLevel), added_tokens: oddTokens, normalizer: { type: "NFC" } },
  },
  "added tokens of every sort, in lower case": {
    expectsCuts: false,
    json: {
      ...marks({ pre_tokenizer: { ...metaspace, split: true } }),
      added_tokens: oddTokens,
      normalizer: { type: "Lowercase" },
    },
  },
  "pieces that begin with a mark": {
    expectsCuts: true,
    json: marks({ pre_tokenizer: { ...metaspace, split: true } }),
  },
  "replaced marks, split before spaces (Gemma)": {
    expectsCuts: false,
    json: marks({
      normalizer: replace,
      pre_tokenizer: splitAt({ String: " " }, "MergedWithPrevious"),
    }),
  },
  "several expressions (DeepSeek)": {
    expectsCuts: false,
    json: bytes(
      sequence(
        "pretokenizers",
        split("[\\r\\n]"),
        split("\\s?[A-Za-zµÀ-ÖØ-öø-ƺ]+"),
        split("\\s?[!-/:-~！-／：-～‘-‟　-。]+"),
        split("\\s+$"),
        split("[一-龥ࠀ-一가-퟿]+"),
        { type: "Digits", individual_digits: true },
        { ...byteLevel, use_regex: false },
      ),
    ),
  },
  "an expression with intersections (o200k)": {
    expectsCuts: false,
    json: bytes(sequence("pretokenizers", split(o200kSplit), { ...byteLevel, use_regex: false })),
  },
  "runs of digits, punctuation merged": {
    expectsCuts: false,
    json: bytes(
      sequence(
        "pretokenizers",
        { type: "Digits", individual_digits: false },
        { type: "Punctuation", behavior: "MergedWithNext" },
        byteLevel,
      ),
    ),
  },
  "words in lower case without accents": {
    expectsCuts: false,
    json: {
      ...marks({ pre_tokenizer: { type: "Whitespace" } }),
      normalizer: sequence(
        "normalizers",
        { type: "NFD" },
        { type: "Lowercase" },
        { type: "StripAccents" },
      ),
    },
  },
  "compatibility forms, replaced and stripped": {
    expectsCuts: false,
    json: marks({
      normalizer: sequence(
        "normalizers",
        { type: "NFKC" },
        { type: "Strip", strip_left: true, strip_right: true },
        { type: "Replace", pattern: { Regex: " {2,}" }, content: "$&" },
        prepend,
      ),
      pre_tokenizer: { type: "CharDelimiterSplit", delimiter: "e" },
    }),
  },
  "ends of words (CLIP)": {
    expectsCuts: false,
    json: {
      ...bytes(
        sequence(
          "pretokenizers",
          splitAt({ Regex: "'s|'t|[\\p{L}]+|[\\p{N}]|[^\\s\\p{L}\\p{N}]+" }, "Removed", true),
          byteLevel,
        ),
        { end_of_word_suffix: "", continuing_subword_prefix: "" },
      ),
      normalizer: sequence(
        "normalizers",
        { type: "NFC" },
        { type: "Replace", pattern: { Regex: "\\s+" }, content: " " },
        { type: "Lowercase" },
      ),
    },
  },
  "unknown characters one by one": { expectsCuts: true, json: unknowns(false) },
  "unknown characters as one": { expectsCuts: true, json: unknowns(true) },
  "scored pieces (Unigram)": { expectsCuts: false, json: scored(false) },
  "scored pieces with bytes": { expectsCuts: false, json: scored(true) },
  "scored pieces after a table of replacements (T5)": {
    expectsCuts: false,
    json: {
      ...scored(false),
      normalizer: {
        type: "Precompiled",
        precompiled_charsmap: charsmap({
          é: "e",
          "\u00a0": " ",
          "e\u0301": "ee",
          "\n": " ",
          𝒳: "X",
        }),
      },
    },
  },
  "longest pieces (BERT)": {
    expectsCuts: false,
    json: {
      ...marks({ normalizer: bert, pre_tokenizer: { type: "BertPreTokenizer" } }),
      model: {
        type: "WordPiece",
        unk_token: "[UNK]",
        continuing_subword_prefix: "##",
        max_input_chars_per_word: 12,
        vocab: numbered([
          "<|endoftext|>",
          "[UNK]",
          ...sampleParts,
          ...sampleParts.map((part) => `##${part}`),
        ]),
      },
    },
  },
  "whole words": {
    expectsCuts: false,
    json: {
      ...marks({ pre_tokenizer: { type: "WhitespaceSplit" } }),
      model: {
        type: "WordLevel",
        unk_token: "[UNK]",
        vocab: numbered(["<|endoftext|>", "[UNK]", ...sampleParts]),
      },
    },
  },
  "tokens that swallow spaces": {
    expectsCuts: false,
    json: { ...bytes(byteLevel), added_tokens: [{ ...endOfText, lstrip: true, rstrip: true }] },
  },
};

export const kinds: typeof made = Object.fromEntries(
  Object.entries(made).map(([name, kind]) => [name, { ...kind, json: withIds(kind.json) }]),
);

/** A double array in which the children of each node have 256 places of their own. */
function charsmap(replacements: Readonly<Record<string, string>>): string {
  const units = [0];
  let list = "";
  const fill = (at: number, words: readonly (readonly [Buffer, string])[], depth: number): void => {
    const base = 256 * Math.ceil((units.length + 1) / 256);
    units[base + 255] = 0;
    let unit = (units[at] ?? 0) | ((at ^ base) << 10);
    for (const byte of new Set(words.map(([key]) => key[depth])))
      if (byte !== undefined) {
        units[base ^ byte] = byte;
        fill(
          base ^ byte,
          words.filter(([key]) => key[depth] === byte),
          depth + 1,
        );
      }
    const own = words.find(([key]) => key.length === depth);
    if (own) {
      unit |= 256;
      units[base] = (0x80000000 | Buffer.byteLength(list)) >>> 0;
      list += `${own[1]}\0`;
    }
    units[at] = unit >>> 0;
  };
  fill(
    0,
    Object.entries(replacements).map(([key, text]) => [Buffer.from(key), text]),
    0,
  );
  const trie = Buffer.from(Uint32Array.from(units, (unit) => unit ?? 0).buffer);
  const size = Buffer.alloc(4);
  size.writeUInt32LE(trie.length);
  return Buffer.concat([size, trie, Buffer.from(list)]).toString("base64");
}

/** The tokenizer with ids for its added tokens: those of the vocabulary, then the next ones, as the reference counts. */
export function withIds(json: object) {
  const { model, added_tokens: added } = json as {
    model: { vocab: Record<string, number> | (readonly [string, number])[] };
    added_tokens: { content: string; id?: number }[];
  };
  const { vocab } = model;
  const known = new Map(
    Array.isArray(vocab) ? vocab.map(([piece], id) => [piece, id]) : Object.entries(vocab),
  );
  let next = known.size;
  const numberedTokens = added.map((each) => ({ id: known.get(each.content) ?? next++, ...each }));
  return { version: "1.0", truncation: null, padding: null, ...json, added_tokens: numberedTokens };
}

/** Writes the tokenizer into a new folder. */
export async function writeTokenizer(json: object, config?: object): Promise<string> {
  const folder = sharedFolder();
  await writeFile(join(folder, "tokenizer.json"), JSON.stringify(json));
  if (config) await writeFile(join(folder, "tokenizer_config.json"), JSON.stringify(config));
  return folder;
}

/** Its id follows from its place: `tokenizer` or `fileOf` gives it. */
function token(content: string, flags: object = {}): object {
  const usual = { single_word: false, lstrip: false, rstrip: false };
  return { content, ...usual, normalized: false, special: false, ...flags };
}

function numbered(pieces: readonly string[]): Record<string, number> {
  return Object.fromEntries([...new Set(pieces)].map((piece, id) => [piece, id]));
}

function unknowns(fuses: boolean): object {
  const json = marks({ normalizer: replace }) as { model: object };
  return { ...json, model: { ...json.model, byte_fallback: false, fuse_unk: fuses } };
}

function scored(withBytes: boolean): object {
  const { model, ...json } = marks({ pre_tokenizer: { ...metaspace, split: !withBytes } }) as {
    model: { vocab: Record<string, number> };
  };
  const pieces = Object.keys(model.vocab).filter((piece) => withBytes || !piece.startsWith("<0x"));
  const vocab = pieces.map((piece, i) => [piece, -((i * 37) % 101) / 8 - 1]);
  return { ...json, model: { type: "Unigram", unk_id: 0, vocab, byte_fallback: withBytes } };
}

function bytes(preTokenizer: object, model: object = {}): object {
  const alphabet = byteCharacters();
  const words = sample.match(/ ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+/gu)!;
  const pieces = words.map((word) => [...Buffer.from(word)].map((byte) => alphabet[byte]!));
  return tokenizer(
    [...alphabet],
    learn(pieces, 80),
    { pre_tokenizer: preTokenizer, decoder: byteLevel },
    model,
  );
}

function marks(parts: object, further: readonly (readonly [string, string])[] = []): object {
  const hex = (byte: number) => byte.toString(16).toUpperCase().padStart(2, "0");
  const bytes = Array.from({ length: 256 }, (_, byte) => `<0x${hex(byte)}>`);
  const words = sample.replaceAll(" ", ` ${mark}`).split(/[ \n\t]/);
  const characters = [...new Set(Array.from(sample.replaceAll(/\s/g, "") + mark))];
  const merges = [
    ...further,
    [mark, mark] as const,
    ...learn(
      words.map((word) => Array.from(word)),
      80,
    ),
  ];
  return tokenizer([...bytes, ...characters], merges, parts, {
    unk_token: "<|endoftext|>",
    fuse_unk: true,
    byte_fallback: true,
  });
}

function tokenizer(
  alphabet: readonly string[],
  merges: readonly (readonly [string, string])[],
  parts: object,
  model: object,
): object {
  const pieces = new Set(["<|endoftext|>", ...alphabet, ...merges.map((pair) => pair.join(""))]);
  return {
    normalizer: null,
    pre_tokenizer: null,
    post_processor: null,
    decoder: null,
    added_tokens: [endOfText],
    ...parts,
    model: {
      type: "BPE",
      unk_token: null,
      vocab: Object.fromEntries([...pieces].map((piece, id) => [piece, id])),
      merges,
      ...model,
    },
  };
}

/** The ids of each text. */
export async function tokensOf(
  documents: DocumentStream,
  tokenizer: Tokenizer,
  options: TokenizeOptions,
): Promise<number[][]> {
  const all: number[] = [];
  const { lengths } = await tokenize(documents, tokenizer, options, (ids) => {
    for (const id of ids) all.push(id);
  });
  let end = 0;
  return lengths.map((length) => all.slice(end, (end += length)));
}

/** A corpus with its tokens as arrays, which can be compared. */
export const plain = ({ texts, ...facts }: Corpus) => ({
  ...facts,
  texts: texts.map(({ tokens, isTarget }) => [[...tokens], isTarget && [...isTarget]]),
});

/** The most frequent pair, merged, again and again. */
function learn(words: string[][], count: number): [string, string][] {
  const merges: [string, string][] = [];
  for (let i = 0; i < count; i++) {
    const counts = new Map<string, number>();
    for (const word of words)
      for (let at = 1; at < word.length; at++) {
        const pair = `${word[at - 1]}\n${word[at]}`;
        counts.set(pair, (counts.get(pair) ?? 0) + 1);
      }
    const [best] = [...counts].sort((a, b) => b[1] - a[1] || (a[0] < b[0] ? -1 : 1))[0] ?? [];
    if (best === undefined) break;
    const [left, right] = best.split("\n") as [string, string];
    merges.push([left, right]);
    for (const word of words)
      for (let at = 1; at < word.length; at++)
        if (word[at - 1] === left && word[at] === right) word.splice(at - 1, 2, left + right);
  }
  return merges;
}

/** GPT-2's printable stand-ins for the 256 bytes. */
function byteCharacters(): string[] {
  const isPrintable = (byte: number) =>
    (byte >= 33 && byte <= 126) || (byte >= 161 && byte <= 172) || byte >= 174;
  let next = 256;
  return Array.from({ length: 256 }, (_, byte) =>
    String.fromCharCode(isPrintable(byte) ? byte : next++),
  );
}
