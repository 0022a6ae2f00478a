// A model's own tokenizer, from its local folder. Most words repeat: texts are cut into words where that is safe, and
// each distinct word is encoded once.

import { createHash } from "node:crypto";
import { join } from "node:path";
import { createContext, Script } from "node:vm";
import { messageOf, UserError } from "../../core/errors.ts";
import { readIfPresent } from "../../files/atomic.ts";
import { decodeWith } from "./library.ts";
import { tokenFinder } from "./added-tokens.ts";
import { cutRule, type CutRule } from "./cuts.ts";
import { normalizerOf, preTokenizerOf } from "./text-steps.ts";
import {
  readTokenizerJson,
  specialToken,
  tokensAround,
  type TokenizerConfig,
  type TokenizerJson,
  type Vocabulary,
  vocabSizeOf,
} from "./tokenizer-json.ts";
import { TokenBuffer, type Tokens } from "../tokens.ts";
import { wordModels } from "./word-models.ts";

export interface Tokenizer {
  readonly folder: string;
  /** Of tokenizer.json and, where present, tokenizer_config.json after it. */
  readonly sha256: string;
  /** One more than the highest token id. */
  readonly vocabSize: number;
  /** The special tokens that the tokenizer itself puts in front of a text, such as BOS, and after it. */
  readonly prefix: readonly number[];
  readonly suffix: readonly number[];
  /** BOS, where one is configured. */
  readonly beginOfText: number | undefined;
  readonly endOfText: number | undefined;
  readonly cuts: CutRule | undefined;
  /** The tokens of a whole text, without special tokens around it; special tokens written in it count as such. */
  encode(text: string): Tokens;
  /** The text of the tokens, special ones included. */
  decode(ids: Iterable<number>): string;
}

// Words to remember at most, and how long; rarer and longer ones would only cost memory.
const maxWords = 1 << 19;
const maxWordLength = 64;

/** Loads a folder's tokenizer, with tokenizer_config.json where there is one; never asks a network. */
export async function loadTokenizer(folder: string): Promise<Tokenizer> {
  const read = async (name: string) => ({ name, bytes: await readIfPresent(join(folder, name)) });
  const configFile = await read("tokenizer_config.json");
  let files = [await read("tokenizer.json")];
  if (!files[0]!.bytes) files = [await read("vocab.json"), await read("merges.txt")];
  if (!files.every(({ bytes }) => bytes)) {
    throw new UserError(`${folder} holds no tokenizer.json`, {
      hint: "text needs the model's tokenizer; token files (.bin) do not",
    });
  }
  const path = join(folder, files[0]!.name);
  const hash = createHash("sha256");
  for (const { bytes } of [...files, configFile]) hash.update(bytes ?? "");
  const config = (
    configFile.bytes ? parse(configFile.bytes, join(folder, configFile.name)) : {}
  ) as TokenizerConfig;
  const main = parse(files[0]!.bytes!, path);
  const merges = files[1]?.bytes?.toString();
  return usable(path, () => {
    const whole = merges === undefined ? main : byteLevelJson(main, merges, config);
    const { json, ids } = readTokenizerJson(whole, config);
    const cuts = cutRule(json);
    const vocabSize = vocabSizeOf(ids);
    // Not before there is something to encode that no cache has.
    let encodeWhole: ((text: string) => number[]) | undefined;
    const encode = wordEncoder(
      (word) => (encodeWhole ??= textEncoder(json, ids))(word),
      cuts,
      vocabSize,
    );
    return {
      folder,
      sha256: hash.digest("hex"),
      vocabSize,
      ...tokensAround(json, config, ids),
      beginOfText: specialToken(ids, config.bos_token),
      endOfText: specialToken(ids, config.eos_token, ["<|endoftext|>", "</s>"]),
      cuts,
      encode: (text) => usable(path, () => withinTime(text.length, () => encode(text))),
      decode: (list) => usable(path, () => decodeWith(json, [...list])),
    };
  });
}

/** GPT-2's own two files as the one that took their place. */
function byteLevelJson(vocab: unknown, merges: string, config: TokenizerConfig): object {
  const lines = merges.split(/\r?\n/).filter((line) => line && !line.startsWith("#version"));
  const { add_prefix_space = false } = config;
  return {
    model: { type: "BPE", vocab, merges: lines },
    pre_tokenizer: { type: "ByteLevel", add_prefix_space },
  };
}

// Halves of surrogate pairs, which UTF-8 cannot write.
const loneHalves = /\p{Cs}/gu;

/** All that the file says is done to a text, in the reference's order. */
function textEncoder(json: TokenizerJson, ids: Vocabulary): (text: string) => number[] {
  const normalize = normalizerOf(json.normalizer);
  const preTokenize = preTokenizerOf(json.pre_tokenizer);
  const encodeWord = wordModels[json.model.type](json.model, ids);
  const finder = (normalizes: boolean) => {
    const tokens = json.added_tokens.filter(
      ({ normalized, special }) => (normalized ?? !special) === normalizes,
    );
    return tokenFinder(
      new Map(
        tokens.map((token) => [normalizes ? normalize(token.content) : token.content, token]),
      ),
    );
  };
  const [findPlain, findNormalized] = [finder(false), finder(true)];
  return (text) =>
    findPlain(text.replace(loneHalves, "\ufffd")).flatMap(({ text: section, start, token }) => {
      if (token) return [token.id];
      return findNormalized(normalize(section)).flatMap((span) => {
        if (span.token) return [span.token.id];
        return preTokenize(span.text, start + span.start === 0).flatMap(encodeWord);
      });
    });
}

/** Encodes between cuts, each distinct word once. */
function wordEncoder(
  encode: (text: string) => number[],
  cuts: CutRule | undefined,
  vocabSize: number,
) {
  const known = new Map<string, readonly number[]>();
  const encodeWord = (word: string): readonly number[] => {
    const ids = known.get(word);
    if (ids) return ids;
    const fresh = encode(word);
    if (word.length <= maxWordLength) {
      if (known.size >= maxWords) known.clear();
      known.set(ownCopy(word), fresh);
    }
    return fresh;
  };
  return (text: string): Tokens => {
    const tokens = new TokenBuffer(vocabSize, 16 + (text.length >> 1));
    let start = 0;
    const end = cuts ? text.length - 1 : 0;
    for (let at = 1; at < end; at++) {
      if (!cuts!.isCut(text, at)) continue;
      tokens.append(encodeWord(text.slice(start, at)));
      start = at + cuts!.skip;
    }
    tokens.append(encodeWord(text.slice(start)));
    return tokens.view();
  };
}

/** A substring keeps the whole string that it was cut from in memory; its copy does not. */
function ownCopy(word: string): string {
  return Buffer.from(word, "utf16le").toString("utf16le");
}

const context = createContext({ run: undefined });
const script = new Script("run()");

/** An expression of the file can look for a match for ever: a slow machine's time for so many characters is the limit. */
function withinTime<T>(characters: number, run: () => T): T {
  context["run"] = run;
  return script.runInContext(context, { timeout: 5000 + Math.ceil(characters / 20) }) as T;
}

/** Whatever a malformed file makes of the work on it is told as one sentence that names the file. */
function usable<T>(path: string, run: () => T): T {
  try {
    return run();
  } catch (error) {
    if (error instanceof UserError) throw error;
    // What the time limit throws is of another realm: no Error of this one.
    const isLate = (error as { code?: unknown }).code === "ERR_SCRIPT_EXECUTION_TIMEOUT";
    const isOurs = error instanceof Error && !(error instanceof TypeError);
    const reason = isLate
      ? "an expression in it takes for ever"
      : isOurs
        ? error.message
        : "an entry has the wrong form";
    throw new UserError(`${path} is no tokenizer that can be used: ${reason}`, { cause: error });
  }
}

function parse(bytes: Uint8Array, path: string): object {
  let json: unknown;
  try {
    json = JSON.parse(new TextDecoder().decode(bytes));
  } catch (error) {
    throw new UserError(`${path} is not JSON: ${messageOf(error)}`, { cause: error });
  }
  if (typeof json === "object" && json && !Array.isArray(json)) return json;
  throw new UserError(`${path} is no tokenizer that can be used: it holds no object`);
}
