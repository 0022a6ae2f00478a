// A model's own tokenizer, wherever its files are. Most words repeat: texts are cut into words where that is safe, and
// each distinct word is encoded once.

import { messageOf, UserError } from "../../core/errors.ts";
import { type JsonObject, parseObject } from "../../core/json.ts";
import { createTokens, type Piece, type Tokens } from "../document.ts";
import { cutRule, type CutRule } from "./cuts.ts";
import { bordersOf, type Part } from "./borders.ts";
import { normalizerOf, preTokenizerOf, spacesEnd, spacesStart, spelled } from "./text-steps.ts";
import { expressionOf, readTokenizerJson } from "./tokenizer-json.ts";
import type { AddedToken, TokenizerJson, Vocabulary } from "./tokenizer-json.ts";
import { wordModels } from "./word-models.ts";

export type Tokenizer = Readonly<Awaited<ReturnType<typeof readTokenizer>>>;

/** Tokens of pieces, one after another, and how many each has; one that spans a border is of the piece that is a target. */
export type EncodedPieces = Readonly<{ ids: Tokens; lengths: readonly number[] }>;

// Words to remember at most, and how long; rarer and longer ones would only cost memory.
const maxWords = 1 << 19;
const maxWordLength = 64;

/** Where a tokenizer's files are, and the rest that depends on the place. */
export interface TokenizerPlace {
  readonly folder: string;
  /** Undefined where there is no such file. */
  readonly read: (name: string) => Promise<Uint8Array | undefined>;
  readonly sha256: (parts: readonly Uint8Array[]) => string | Promise<string>;
  /** Does the work, within so many milliseconds where the place can end it. */
  readonly within: Within;
}

type Within = <T>(milliseconds: number, work: () => T) => T;

/** All that a folder may have of it. */
export const TOKENIZER_FILES = [
  ...(["tokenizer.json", "tokenizer_config.json", "vocab.json", "merges.txt"] as const),
];

/** Makes a tokenizer of its files, with tokenizer_config.json where there is one. */
export async function readTokenizer(place: TokenizerPlace) {
  const { folder, read, sha256, within } = place;
  const one = await read("tokenizer.json");
  // GPT-2's own two files, before there was the one.
  const files = one ? [one] : [await read("vocab.json"), await read("merges.txt")];
  const configFile = await read("tokenizer_config.json");
  if (!files.every((bytes) => bytes))
    throw new UserError(`${folder} holds no tokenizer.json`, {
      hint: "text needs it, beside the model's weights; token files (.bin, .npy) do not",
    });
  const all = [...files, configFile].flatMap((bytes) => bytes ?? []);
  const [digest, path] = [await sha256(all), `${folder}/${one ? "tokenizer.json" : "vocab.json"}`];
  const decoder = new TextDecoder();
  const [main, merges] = files.map((bytes) => decoder.decode(bytes));
  const object = parseObject(main!, path);
  const config = configFile
    ? parseObject(decoder.decode(configFile), `${folder}/tokenizer_config.json`)
    : {};
  return usable(within, path, 0, () => {
    const whole = one ? object : byteLevelJson(object, merges!, config);
    const { json, ids, specials } = readTokenizerJson(whole, config);
    const cuts = cutRule(json);
    const steps = [...json.normalizer, ...json.pre_tokenizer];
    const isByteLevel = steps.some(({ type }) => type === "ByteLevel");
    // Not before there is something to encode that no cache has.
    let encodeWhole: ((text: string) => Part[]) | undefined;
    const partsOf = (text: string) => (encodeWhole ??= textEncoder(json, ids))(text);
    const encodeWord = remembering((word) => partsOf(word).flatMap((part) => part.ids));
    let pieces: ReadonlyMap<number, string> | undefined;
    const pieceOf = (id: number) =>
      (pieces ??= new Map(Array.from(ids, ([piece, id]) => [id, piece]))).get(id);
    const before = bordersOf({ partsOf, model: json.model, pieceOf });
    return {
      folder,
      /** Of tokenizer.json and, where present, tokenizer_config.json after it. */
      sha256: digest,
      ...specials,
      cuts,
      /** Special tokens written in a text count as such; none are put around it. */
      encode: (pieces: readonly Piece[]) => {
        const characters = pieces.reduce((sum, { text }) => sum + text.length, 0);
        const encoded = () => encodePieces(pieces, { cuts, ...specials }, encodeWord, before);
        return usable(within, path, characters, encoded);
      },
      /** The vocabulary's own spelling of a token. */
      pieceOf,
      /** The text of each, for people. */
      spell: (ids: Iterable<number>) => spelled(isByteLevel, [...ids].map(pieceOf)),
      /** As they are written in a text. */
      specialTokens: json.added_tokens.filter((each) => each.special).map((each) => each.content),
    };
  });
}

/** GPT-2's own two files as the one that took their place. */
function byteLevelJson(vocab: JsonObject, merges: string, config: JsonObject): JsonObject {
  const lines = merges.split(/\r?\n/).filter((line) => line && !line.startsWith("#version"));
  const { add_prefix_space = false } = config;
  return {
    model: { type: "BPE", vocab, merges: lines },
    pre_tokenizer: { type: "ByteLevel", add_prefix_space },
  };
}

/** The tokens of a stretch of a text that begins at `start`. */
type Encoder = (text: string, start: number) => Part[];

// Halves of surrogate pairs, which UTF-8 cannot write.
const loneHalves = /\p{Cs}/gu;

/** All that the file says is done to a text, in the reference's order: added tokens are found first. */
function textEncoder(json: TokenizerJson, ids: Vocabulary): (text: string) => Part[] {
  const normalize = normalizerOf(json.normalizer);
  const preTokenize = preTokenizerOf(json.pre_tokenizer);
  const encodeWord = wordModels[json.model.type](json.model, ids);
  const formsOf = (normalizes: boolean) =>
    json.added_tokens
      .filter(({ normalized, special }) => (normalized ?? !special) === normalizes)
      .map((token) => [normalizes ? normalize(token.content) : token.content, token] as const);
  const encodeNormalized = withTokens(formsOf(true), (text, start) =>
    preTokenize(text, start === 0).map((surface) => ({ surface, ids: encodeWord(surface) })),
  );
  const encode = withTokens(formsOf(false), (text, start) =>
    encodeNormalized(normalize(text), start),
  );
  return (text) => encode(text.replace(loneHalves, "\ufffd"), 0);
}

const wordEnd = /[\p{Alphabetic}\p{M}\p{Nd}\p{Pc}\p{Join_Control}]$/u;
const wordStart = /^[\p{Alphabetic}\p{M}\p{Nd}\p{Pc}\p{Join_Control}]/u;

/** Finds tokens by the forms given for them, the leftmost first, the longest of several; `encode` is for the rest. */
function withTokens(tokens: readonly (readonly [string, AddedToken])[], encode: Encoder): Encoder {
  const byForm = new Map(tokens);
  const forms = [...byForm.keys()].filter(Boolean).sort((a, b) => b.length - a.length);
  if (forms.length === 0) return encode;
  const sources = forms.map((form) => expressionOf({ String: form }).source);
  const expression = new RegExp(sources.join("|"), "gu");
  return (text, offset) => {
    const parts: Part[][] = [];
    let end = 0;
    const encodeTo = (stop: number): void => {
      if (stop > end) parts.push(encode(text.slice(end, stop), offset + end));
    };
    for (const { 0: form, index } of text.matchAll(expression)) {
      const { id, single_word: isWord, lstrip, rstrip } = byForm.get(form)!;
      const [before, after] = [text.slice(end, index), text.slice(index + form.length)];
      const touches = wordEnd.test(text.slice(0, index).slice(-2)) || wordStart.test(after);
      if (isWord && touches) continue;
      encodeTo(index - (lstrip ? spacesEnd.exec(before)![0].length : 0));
      parts.push([{ surface: form, ids: [id] }]);
      end = index + form.length + (rstrip ? spacesStart.exec(after)![0].length : 0);
    }
    encodeTo(text.length);
    return parts.flat();
  };
}

type WordEncoder = (word: string) => readonly number[];

function remembering(encode: WordEncoder): WordEncoder {
  const known = new Map<string, readonly number[]>();
  return (word) => {
    const ids = known.get(word);
    if (ids) return ids;
    const fresh = encode(word);
    if (word.length > maxWordLength) return fresh;
    if (known.size >= maxWords) known.clear();
    // A substring keeps the whole string that it was cut from in memory; its copy does not.
    known.set(JSON.parse(JSON.stringify(word)) as string, fresh);
    return fresh;
  };
}

/** A word at a border is encoded once more, up to there. */
function encodePieces(
  pieces: readonly Piece[],
  { cuts, vocabSize }: { readonly cuts: CutRule | undefined; readonly vocabSize: number },
  encodeWord: WordEncoder,
  before: ReturnType<typeof bordersOf>,
): EncodedPieces {
  const ids: number[] = [];
  /** How many ids there were when each piece began. */
  const begins: number[] = [];
  let text = "";
  /** Where pieces begin in the text of a document, as far as no token there is known yet. */
  const borders: number[] = [];
  const appendWord = (start: number, end: number): void => {
    const word = text.slice(start, end);
    while (borders[0]! < end) {
      const border = borders.shift()! - start;
      let [first, second] = [begins.length - 1, begins.length];
      while (pieces[first]?.text === "") first--;
      while (pieces[second]?.text === "") second++;
      const isOfFirst = pieces[first]?.isTarget === true && !pieces[second]?.isTarget;
      const isInside = border > 0 || (border === 0 && start > 0 && cuts?.skip === 1);
      const known = ids.length + (isInside ? before(word, border, isOfFirst) : 0);
      begins.push(Math.max(begins.at(-1) ?? 0, known));
    }
    for (const id of encodeWord(word)) ids.push(id);
  };
  for (const [i, piece] of pieces.entries()) {
    borders.push(text.length);
    text += piece.text;
    if (!piece.isLast && i < pieces.length - 1) continue;
    let start = 0;
    const end = cuts ? text.length - 1 : 0;
    for (let at = 1; at < end; at++) {
      if (!cuts!.isCut(text, at)) continue;
      appendWord(start, at);
      start = at + cuts!.skip;
    }
    appendWord(start, text.length);
    for (; borders.length > 0; borders.pop()) begins.push(ids.length);
    text = "";
  }
  const lengths = begins.map((begin, i) => (begins[i + 1] ?? ids.length) - begin);
  return { ids: createTokens(ids, vocabSize), lengths };
}

/**
 * An expression of the file can look for a match for ever: a slow machine's time for so many characters is the limit.
 * Whatever a malformed file makes of the work on it is told as one sentence that names the file.
 */
function usable<T>(within: Within, path: string, characters: number, run: () => T): T {
  try {
    return within(5000 + Math.ceil(characters / 20), run);
  } catch (error) {
    if (error instanceof UserError) throw error;
    const isLate = (error as { code?: unknown }).code === "ERR_SCRIPT_EXECUTION_TIMEOUT";
    const formless = error instanceof TypeError ? "an entry has the wrong form" : messageOf(error);
    const reason = isLate ? "an expression in it takes for ever" : formless;
    throw new UserError(`${path} is no tokenizer that can be used: ${reason}`, { cause: error });
  }
}
