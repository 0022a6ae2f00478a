// A model's own tokenizer, from its local folder. Most words repeat: texts are cut into words where that is safe, and
// each distinct word is encoded once.

import { createHash } from "node:crypto";
import { join } from "node:path";
import { createContext, Script } from "node:vm";
import { messageOf, UserError } from "../../core/errors.ts";
import { readIfPresent } from "../../files/atomic.ts";
import { type JsonObject, parseObject } from "../../files/json.ts";
import { TokenBuffer, type Tokens } from "../tokens.ts";
import { cutRule, type CutRule } from "./cuts.ts";
import { textEncoder } from "./encoder.ts";
import { decodeWith } from "./library.ts";
import { readTokenizerJson, type Specials } from "./tokenizer-json.ts";

export interface Tokenizer extends Specials {
  readonly folder: string;
  /** Of tokenizer.json and, where present, tokenizer_config.json after it. */
  readonly sha256: string;
  readonly cuts: CutRule | undefined;
  /** The tokens of a whole text, without special tokens around it; special tokens written in it count as such. */
  encode(text: string): Tokens;
  /**
   * Appends the tokens of the text that the parts are together, and gives how many belong to each part; a token that
   * spans a border belongs to the part after it.
   */
  encodeParts(parts: readonly string[], ids: TokenBuffer): number[];
  /** The text of the tokens, special ones included. */
  decode(ids: Iterable<number>): string;
}

// Words to remember at most, and how long; rarer and longer ones would only cost memory.
const maxWords = 1 << 19;
const maxWordLength = 64;

/** Loads a folder's tokenizer, with tokenizer_config.json where there is one; never asks a network. */
export async function loadTokenizer(folder: string): Promise<Tokenizer> {
  const read = (name: string) => readIfPresent(join(folder, name));
  const one = await read("tokenizer.json");
  // GPT-2's own two files, before there was the one.
  const files = one ? [one] : [await read("vocab.json"), await read("merges.txt")];
  const configFile = await read("tokenizer_config.json");
  if (!files.every((bytes) => bytes)) {
    throw new UserError(`${folder} holds no tokenizer.json`, {
      hint: "text needs the model's tokenizer; token files (.bin) do not",
    });
  }
  const hash = createHash("sha256");
  for (const bytes of [...files, configFile]) hash.update(bytes ?? "");
  const path = join(folder, one ? "tokenizer.json" : "vocab.json");
  const decoder = new TextDecoder();
  const [main, merges] = files.map((bytes) => decoder.decode(bytes));
  const object = parseObject(main!, path);
  const configPath = join(folder, "tokenizer_config.json");
  const config = configFile ? parseObject(decoder.decode(configFile), configPath) : {};
  return usable(path, 0, () => {
    const whole = one ? object : byteLevelJson(object, merges!, config);
    const { json, ids, specials } = readTokenizerJson(whole, config);
    const cuts = cutRule(json);
    // Not before there is something to encode that no cache has.
    let encodeWhole: ((text: string) => number[]) | undefined;
    const encodeWord = remembering((word) => (encodeWhole ??= textEncoder(json, ids))(word));
    const encodeParts = (parts: readonly string[], into: TokenBuffer): number[] => {
      const length = parts.reduce((sum, part) => sum + part.length, 0);
      return usable(path, length, () => appendWords(parts, encodeWord, cuts, into));
    };
    return {
      folder,
      sha256: hash.digest("hex"),
      ...specials,
      cuts,
      encodeParts,
      encode(text) {
        const tokens = new TokenBuffer(specials.vocabSize, 16 + (text.length >> 1));
        encodeParts([text], tokens);
        return tokens.view();
      },
      decode: (list) => usable(path, 0, () => decodeWith(json, [...list])),
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

type WordEncoder = (word: string) => readonly number[];

/** Encodes each distinct word once. */
function remembering(encode: WordEncoder): WordEncoder {
  const known = new Map<string, readonly number[]>();
  return (word) => {
    const ids = known.get(word);
    if (ids) return ids;
    const fresh = encode(word);
    if (word.length > maxWordLength) return fresh;
    if (known.size >= maxWords) known.clear();
    // A substring keeps the whole string that it was cut from in memory; its copy does not.
    known.set(Buffer.from(word, "utf16le").toString("utf16le"), fresh);
    return fresh;
  };
}

/** See Tokenizer.encodeParts. Only a word at a border is encoded more than once: whole, and up to the border. */
function appendWords(
  parts: readonly string[],
  encodeWord: WordEncoder,
  cuts: CutRule | undefined,
  ids: TokenBuffer,
): number[] {
  const text = parts.join("");
  let length = 0;
  const ends = parts.map((part) => (length += part.length));
  /** How many ids there were when each part began. */
  const begins = [ids.length];
  const append = (start: number, end: number): void => {
    const tokens = encodeWord(text.slice(start, end));
    let done = 0;
    while (ends[begins.length - 1]! < end) {
      const border = ends[begins.length - 1]!;
      const before = border > start ? encodeWord(text.slice(start, border)) : [];
      const differs = before.findIndex((id, at) => id !== tokens[at]);
      const known = Math.max(done, differs < 0 ? before.length : differs);
      ids.append(tokens.slice(done, known));
      begins.push(ids.length);
      done = known;
    }
    ids.append(done > 0 ? tokens.slice(done) : tokens);
  };
  let start = 0;
  const end = cuts ? text.length - 1 : 0;
  for (let at = 1; at < end; at++) {
    if (!cuts!.isCut(text, at)) continue;
    append(start, at);
    start = at + cuts!.skip;
  }
  append(start, text.length);
  return parts.map((_, i) => (begins[i + 1] ?? ids.length) - (begins[i] ?? ids.length));
}

const context = createContext({ run: undefined });
const script = new Script("run()");

/**
 * An expression of the file can look for a match for ever: a slow machine's time for so many characters is the limit.
 * Whatever a malformed file makes of the work on it is told as one sentence that names the file.
 */
function usable<T>(path: string, characters: number, run: () => T): T {
  context["run"] = run;
  try {
    return script.runInContext(context, { timeout: 5000 + Math.ceil(characters / 20) }) as T;
  } catch (error) {
    if (error instanceof UserError) throw error;
    const isLate = (error as { code?: unknown }).code === "ERR_SCRIPT_EXECUTION_TIMEOUT";
    const formless = error instanceof TypeError ? "an entry has the wrong form" : messageOf(error);
    const reason = isLate ? "an expression in it takes for ever" : formless;
    throw new UserError(`${path} is no tokenizer that can be used: ${reason}`, { cause: error });
  }
}
