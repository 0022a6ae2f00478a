// A model's own tokenizer, from its local folder. @huggingface/transformers encodes; since that is slow and most words
// repeat, texts are cut into words where that is safe, and each distinct word is encoded once.

import type * as Transformers from "@huggingface/transformers";
import type { PreTrainedTokenizer } from "@huggingface/transformers";
import { createHash } from "node:crypto";
import { createRequire } from "node:module";
import { join } from "node:path";
import { messageOf, UserError } from "../../core/errors.ts";
import { readIfPresent } from "../../files/atomic.ts";
import { cutRule, type CutRule } from "./cuts.ts";
import { mergePairs, mergeRanks } from "./pair-merging.ts";
import {
  isTokenizerJson,
  specialToken,
  templatePrefix,
  type TokenizerConfig,
  type TokenizerJson,
  vocabSizeOf,
} from "./tokenizer-json.ts";
import { TokenBuffer, type Tokens } from "../tokens.ts";

export interface Tokenizer {
  readonly folder: string;
  /** Of tokenizer.json and, where present, tokenizer_config.json after it. */
  readonly sha256: string;
  /** One more than the highest token id. */
  readonly vocabSize: number;
  /** The special tokens that the tokenizer itself puts in front of a text, such as BOS. */
  readonly prefix: readonly number[];
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

/** Loads tokenizer.json (and tokenizer_config.json where there is one) from a folder; never asks a network. */
export async function loadTokenizer(folder: string): Promise<Tokenizer> {
  const path = join(folder, "tokenizer.json");
  const jsonBytes = await readIfPresent(path);
  if (!jsonBytes) {
    throw new UserError(`${folder} holds no tokenizer.json`, {
      hint: "text needs the model's tokenizer; token files (.bin) do not",
    });
  }
  const configPath = join(folder, "tokenizer_config.json");
  const configBytes = await readIfPresent(configPath);
  const json = parse(jsonBytes, path);
  if (!isTokenizerJson(json)) throw unusable(path, "it has no vocabulary or no added tokens");
  const config = configBytes ? (parse(configBytes, configPath) as TokenizerConfig) : {};

  // The library takes half a second to load: not before there is something to encode that no cache has.
  let opened: PreTrainedTokenizer | undefined;
  const library = () => (opened ??= openLibrary(json, config, path));
  const encodeWhole = (text: string): number[] =>
    library().encode(text, { add_special_tokens: false });
  const cuts = cutRule(json, config);
  const vocabSize = vocabSizeOf(json);
  return {
    folder,
    sha256: createHash("sha256")
      .update(jsonBytes)
      .update(configBytes ?? "")
      .digest("hex"),
    vocabSize,
    prefix: templatePrefix(json) ?? addedInFront(library(), encodeWhole),
    beginOfText: specialToken(json, config.bos_token),
    endOfText: specialToken(json, config.eos_token, ["<|endoftext|>", "</s>"]),
    cuts,
    encode: wordEncoder(encodeWhole, cuts, vocabSize),
    decode(ids) {
      const list = [...ids];
      if (list.length === 0) return "";
      return library().decode(list, { clean_up_tokenization_spaces: false });
    },
  };
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

const require = createRequire(import.meta.url);

function openLibrary(
  json: TokenizerJson,
  config: TokenizerConfig,
  path: string,
): PreTrainedTokenizer {
  // Not imported, so that encoding, which is not asynchronous, can be what loads it.
  const transformers = require("@huggingface/transformers") as typeof Transformers;
  try {
    const library = new transformers.PreTrainedTokenizer(json, config);
    mergeFaster(library);
    return library;
  } catch (error) {
    throw unusable(path, messageOf(error), error);
  }
}

function unusable(path: string, reason: string, cause?: unknown): UserError {
  return new UserError(`${path} is no tokenizer that can be used: ${reason}`, { cause });
}

/** Has the library merge short words by our scan; longer ones stay with its heap, whose time grows more slowly. */
function mergeFaster({ _tokenizer: tokenizer }: PreTrainedTokenizer): void {
  const model = tokenizer.model as Partial<MergingModel>;
  const {
    merges,
    bpe: mergeLong,
    end_of_word_suffix: end,
    continuing_subword_suffix: inner,
  } = model;
  if (!merges || !mergeLong || end || inner) return;
  const ranks = mergeRanks(merges);
  model.bpe = (word) =>
    word.length > maxWordLength ? mergeLong.call(model, word) : mergePairs(word, ranks);
}

/** What a model of the library has if it merges pairs. */
interface MergingModel {
  readonly merges: readonly (readonly [string, string])[];
  bpe: (word: string) => string[];
  readonly end_of_word_suffix: string | null | undefined;
  readonly continuing_subword_suffix: string | null;
}

/** What is in front when special tokens are added to a text, and not when they are not. */
function addedInFront(
  library: PreTrainedTokenizer,
  encode: (text: string) => number[],
): readonly number[] {
  const plain = encode("a");
  const full = library.encode("a");
  const isPlainAt = (start: number) => plain.every((id, i) => id === full[start + i]);
  return full.slice(
    0,
    Math.max(
      0,
      full.findIndex((_, start) => isPlainAt(start)),
    ),
  );
}

function parse(bytes: Uint8Array, path: string): unknown {
  try {
    return JSON.parse(new TextDecoder().decode(bytes));
  } catch (error) {
    throw new UserError(`${path} is not JSON: ${messageOf(error)}`, { cause: error });
  }
}
