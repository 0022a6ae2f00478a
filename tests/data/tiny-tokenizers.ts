// Small BPE tokenizers of each kind, with merges learnt from a sentence, written as Hugging Face folders.

import { mkdtemp, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";

export const llama3Split = String.raw`(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+`;
export const mark = "\u2581";

const sample =
  "The hen's eggs, the dog's bone and the cat's tail; they'll meet (again) in 1984 or 2001.\n" +
  '  The End\n\n\tThen there, then here: the same old story - "the hen" and "the dog".\n';

const byteLevel = { type: "ByteLevel", add_prefix_space: false, trim_offsets: true };
const metaspace = { type: "Metaspace", replacement: mark, prepend_scheme: "first", split: false };
const replace = { type: "Replace", pattern: { String: " " }, content: mark };
const prepend = { type: "Prepend", prepend: mark };
const endOfText = { id: 0, content: "<|endoftext|>", special: true, normalized: false };

const split = (regex: string) => ({
  type: "Split",
  pattern: { Regex: regex },
  behavior: "Isolated",
  invert: false,
});
const sequence = (key: string, steps: readonly object[]) => ({ type: "Sequence", [key]: steps });

/** What tells the kinds apart; `expectsCuts` is what the cut rule should find. */
export const kinds: Readonly<
  Record<string, { readonly expectsCuts: boolean; readonly json: object }>
> = {
  "byte-level (GPT-2)": { expectsCuts: true, json: bytes(byteLevel) },
  "byte-level with NFC and space tokens (GPT-NeoX)": {
    expectsCuts: true,
    json: {
      ...bytes(byteLevel),
      normalizer: { type: "NFC" },
      added_tokens: [endOfText, spaces(2, 900), spaces(3, 901), spaces(5, 902)],
    },
  },
  "byte-level with Llama 3's expression": {
    expectsCuts: true,
    json: bytes(
      sequence("pretokenizers", [split(llama3Split), { ...byteLevel, use_regex: false }]),
      { ignore_merges: true },
    ),
  },
  "byte-level after single digits": {
    expectsCuts: true,
    json: bytes(
      sequence("pretokenizers", [{ type: "Digits", individual_digits: true }, byteLevel]),
    ),
  },
  "byte-level with a prefix space": {
    expectsCuts: false,
    json: bytes({ ...byteLevel, add_prefix_space: true }),
  },
  "byte-level with an unknown expression": {
    expectsCuts: false,
    json: bytes(sequence("pretokenizers", [split(String.raw`\w+ \w+|[\s\S]`), byteLevel])),
  },
  "prepended and replaced marks (Llama 2)": {
    expectsCuts: true,
    json: marks({ normalizer: sequence("normalizers", [prepend, replace]) }),
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
      ["en", mark],
    ]),
  },
  "tokens that swallow spaces": {
    expectsCuts: false,
    json: { ...bytes(byteLevel), added_tokens: [{ ...endOfText, lstrip: true, rstrip: true }] },
  },
};

/** Writes the tokenizer into a new folder. */
export async function writeTokenizer(json: object, config?: object): Promise<string> {
  const folder = await mkdtemp(join(tmpdir(), "ssa-tokenizer-"));
  await writeFile(join(folder, "tokenizer.json"), JSON.stringify(json));
  if (config) await writeFile(join(folder, "tokenizer_config.json"), JSON.stringify(config));
  return folder;
}

function spaces(count: number, id: number): object {
  return { id, content: " ".repeat(count), special: false, normalized: true };
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
  const pieces = new Set([endOfText.content, ...alphabet, ...merges.map((pair) => pair.join(""))]);
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
