// A split of data as tokens: read, tokenized once, and kept in a cache on disk.

import { createHash, type Hash } from "node:crypto";
import { UserError } from "../core/errors.ts";
import { sha256OfFile } from "../files/safetensors.ts";
import type { DataSplit } from "./readers/data-files.ts";
import { readTexts } from "./readers/read-texts.ts";
import {
  countTargets,
  joinDocuments,
  type DocumentStream,
  type Piece,
  type TokenizedText,
} from "./document.ts";
import { cacheVersion, readCache, writeCache, type CachedCorpus } from "./tokenizer/token-cache.ts";
import { readTokenFile } from "./readers/token-file.ts";
import { tokenize, type TokenizeOptions } from "./tokenizer/tokenize.ts";
import type { Tokenizer } from "./tokenizer/tokenizer.ts";
import { countWords, wikitextPages } from "./readers/wikitext.ts";

export interface Corpus {
  /** The tokens of each text, the prefix in front; of a token file, one text of exactly its tokens. */
  readonly texts: readonly TokenizedText[];
  readonly numTokens: number;
  /** Targets among the tokens, without the prefixes. */
  readonly numTargets: number;
  /** Of the original texts, as far as they are targets; undefined for token files. */
  readonly utf8Bytes: number | undefined;
  /** Words of the original texts, counted where pages are made, else null. */
  readonly numWords: number | null;
  /** Of the joined text (several texts: a zero byte between them), or of the token file's bytes. */
  readonly dataSha256: string;
  readonly fromCache: boolean;
}

export interface CorpusOptions extends Omit<TokenizeOptions, "prefix"> {
  /** The field of rows that holds the text; default "text". */
  readonly field?: string;
  /** Makes one text of all, with this between them; by default each row and each file is a text. */
  readonly separator?: string;
  /** Makes WikiText's pages the texts, whatever the rows are, and undoes its spacing. */
  readonly pages?: boolean;
  /** What is put in front of each text; default: what the tokenizer itself puts there. */
  readonly prefix?: readonly number[];
  /** Where tokens are kept; without it nothing is. */
  readonly cacheFolder?: string;
}

/** Loads texts through the tokenizer. */
export async function loadCorpus(
  split: DataSplit,
  tokenizer: Tokenizer,
  options: CorpusOptions = {},
): Promise<Corpus> {
  if (split.format === "bin") return await loadTokenCorpus(split, tokenizer.vocabSize);
  const { prefix = tokenizer.prefix, cacheFolder } = options;
  const key = cacheFolder === undefined ? "" : await cacheKey(split, tokenizer, prefix, options);
  const cached = cacheFolder && (await readCache(cacheFolder, key, tokenizer.vocabSize));
  const found = cached || (await tokenizeSplit(split, tokenizer, prefix, options));
  if (cacheFolder !== undefined && !cached) await writeCache(cacheFolder, key, found);
  if (found.lengths.length === 0) {
    throw new UserError(`${split.description} holds no text`, { hint: "is it the right file?" });
  }
  const { tokens, isTarget, lengths, ...rest } = found;
  let end = 0;
  const texts = lengths.map((length) => {
    const start = end;
    end += length;
    const targets = isTarget && { isTarget: isTarget.subarray(start, end) };
    return { tokens: tokens.subarray(start, end), ...targets };
  });
  return {
    ...rest,
    texts,
    numTokens: tokens.length,
    numTargets: texts.reduce((sum, text) => sum + countTargets(text, prefix.length), 0),
    fromCache: Boolean(cached),
  };
}

/** Loads token files: nothing is added to them, and no tokenizer is needed. */
export async function loadTokenCorpus(split: DataSplit, vocabSize: number): Promise<Corpus> {
  const hash = createHash("sha256");
  const texts: TokenizedText[] = [];
  for (const part of split.parts) {
    const tokens = await readTokenFile(part, vocabSize);
    hash.update(new Uint8Array(tokens.buffer, tokens.byteOffset, tokens.byteLength));
    if (tokens.length > 0) texts.push({ tokens });
  }
  if (texts.length === 0) throw new UserError(`${split.description} holds no tokens`);
  const numTokens = texts.reduce((sum, { tokens }) => sum + tokens.length, 0);
  return {
    texts,
    numTokens,
    numTargets: numTokens,
    utf8Bytes: undefined,
    numWords: null,
    dataSha256: hash.digest("hex"),
    fromCache: false,
  };
}

async function tokenizeSplit(
  split: DataSplit,
  tokenizer: Tokenizer,
  prefix: readonly number[],
  { field, separator, pages = false, ...options }: CorpusOptions,
): Promise<CachedCorpus> {
  const rows = readTexts(split, field);
  const made = pages
    ? wikitextPages(rows)
    : separator === undefined
      ? rows
      : joinDocuments(rows, separator);
  const counts = { utf8Bytes: 0, numWords: 0, hash: createHash("sha256") };
  const documents = counted(made, counts, pages);
  const tokenized = await tokenize(documents, tokenizer, { ...options, prefix });
  return {
    ...tokenized,
    utf8Bytes: counts.utf8Bytes,
    numWords: pages ? counts.numWords : null,
    dataSha256: counts.hash.digest("hex"),
  };
}

/** Passes documents on and counts and hashes what they were made of; a prompt's end is told from its text. */
async function* counted(
  documents: DocumentStream,
  counts: { utf8Bytes: number; numWords: number; readonly hash: Hash },
  countsWords: boolean,
): AsyncGenerator<Piece> {
  let isBetween = false;
  for await (const piece of documents) {
    const { isTarget, isLast, original = piece.text } = piece;
    if (isBetween) counts.hash.update("\0");
    isBetween = isLast;
    counts.hash.update(original);
    if (isTarget) counts.utf8Bytes += Buffer.byteLength(original);
    else counts.hash.update("\u0001");
    if (countsWords) counts.numWords += countWords(original);
    yield piece;
  }
}

/** Everything that the tokens depend on. */
async function cacheKey(
  { format, parts }: DataSplit,
  tokenizer: Tokenizer,
  prefix: readonly number[],
  { field, separator, pages }: CorpusOptions,
): Promise<string> {
  const files = [];
  for (const { path, begin, end } of parts) files.push([await sha256OfFile(path), begin, end]);
  const options = { prefix, field, separator, pages };
  const key = JSON.stringify({
    cacheVersion,
    format,
    files,
    tokenizer: tokenizer.sha256,
    ...options,
  });
  return createHash("sha256").update(key).digest("hex");
}
