// A split of data as tokens: read, tokenized once, and kept in a cache on disk.

import { createHash } from "node:crypto";
import { invariant, UserError } from "../core/errors.ts";
import { sha256OfFile } from "../files/safetensors.ts";
import type { DataSplit } from "./readers/files.ts";
import { formats } from "./readers/formats.ts";
import { readDocuments } from "./read-documents.ts";
import {
  countTargets,
  joinDocuments,
  type DocumentStream,
  type Piece,
  type TokenizedText,
} from "./document.ts";
import { cacheVersion, readCache, writeCache, type CachedCorpus } from "./tokenizer/token-cache.ts";
import type { Tokens } from "./tokens.ts";
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
  /** Makes other documents of them, in place of the two above. The cache knows it by its name. */
  readonly remake?: {
    readonly name: string;
    readonly of: (documents: DocumentStream) => DocumentStream;
  };
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
  if (holdsTokens(split)) return await loadTokenCorpus(split, tokenizer.vocabSize);
  const { prefix = tokenizer.prefix, cacheFolder } = options;
  const key = cacheFolder === undefined ? "" : await cacheKey(split, tokenizer, prefix, options);
  const cached = cacheFolder && (await readCache(cacheFolder, key));
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

/** Whether a split needs no tokenizer. */
export function holdsTokens({ format }: DataSplit): boolean {
  return formats[format].holds === "tokens";
}

/** Loads token files: nothing is added to them, and no tokenizer is needed. */
export async function loadTokenCorpus(
  { format, files, part, description }: DataSplit,
  vocabSize: number,
): Promise<Corpus> {
  const reader = formats[format];
  invariant(reader.holds === "tokens", `${format} files hold no tokens`);
  const all: Tokens[] = [];
  for (const path of files) all.push(await reader.read(path, vocabSize));
  const total = all.reduce((sum, { length }) => sum + length, 0);
  const cut = part ? Math.floor((1 - part.share) * total) : 0;
  const hash = createHash("sha256");
  const texts: TokenizedText[] = [];
  let start = 0;
  for (const whole of all) {
    const inside = Math.min(whole.length, Math.max(0, cut - start));
    const tokens = part?.side === "kept" ? whole.subarray(0, inside) : whole.slice(inside);
    start += whole.length;
    hash.update(new Uint8Array(tokens.buffer, tokens.byteOffset, tokens.byteLength));
    if (tokens.length > 0) texts.push({ tokens });
  }
  if (texts.length === 0) throw new UserError(`${description} holds no tokens`);
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
  { field, separator, pages = false, remake, ...options }: CorpusOptions,
): Promise<CachedCorpus> {
  const hash = createHash("sha256");
  let [utf8Bytes, numWords] = [0, 0];
  /** Counts and hashes what documents were made of; a prompt's end is told from its text. */
  async function* counted(documents: DocumentStream): AsyncGenerator<Piece> {
    let isBetween = false;
    for await (const piece of documents) {
      const { isTarget, isLast, original = piece.text } = piece;
      if (isBetween) hash.update("\0");
      isBetween = isLast;
      hash.update(original);
      if (isTarget) utf8Bytes += Buffer.byteLength(original);
      else hash.update("\u0001");
      if (pages) numWords += countWords(original);
      yield piece;
    }
  }
  let documents: DocumentStream = readDocuments(split, field);
  if (remake) documents = remake.of(documents);
  else if (pages) documents = wikitextPages(documents);
  else if (separator !== undefined) documents = joinDocuments(documents, separator);
  const tokenized = await tokenize(counted(documents), tokenizer, { ...options, prefix });
  const dataSha256 = hash.digest("hex");
  return { ...tokenized, utf8Bytes, numWords: pages ? numWords : null, dataSha256 };
}

/** Everything that the tokens depend on. */
async function cacheKey(
  { format, files, part }: DataSplit,
  tokenizer: Tokenizer,
  prefix: readonly number[],
  { field, separator, pages, remake }: CorpusOptions,
): Promise<string> {
  const hashes: string[] = [];
  for (const path of files) hashes.push(await sha256OfFile(path));
  const remade = remake?.name;
  const options = { prefix, field, separator, pages, remade, tokenizer: tokenizer.sha256 };
  const key = JSON.stringify({ cacheVersion, format, hashes, part, ...options });
  return createHash("sha256").update(key).digest("hex");
}
