// A split of data as documents and as tokens: read, cut where an end is held out, tokenized once, and kept on disk.

import { createHash } from "node:crypto";
import { invariant, UserError } from "../core/errors.ts";
import { sha256OfFile } from "../files/safetensors.ts";
import { type ConventionName, conventions } from "./windows.ts";
import { countTargets, Stretched, stretchesOf, sum } from "./document.ts";
import type { DocumentStream, Piece, Remake, TokenizedText, Tokens } from "./document.ts";
import { partOf, sideOf } from "./held-out.ts";
import type { DataSplit } from "./readers/files.ts";
import { formats } from "./readers/formats.ts";
import type { RowOptions } from "./readers/rows.ts";
import { countWords } from "./readers/wikitext.ts";
import { throughCache } from "./tokenizer/token-cache.ts";
import { type EmitTokens, tokenize, type TokenizeOptions } from "./tokenizer/tokenize.ts";
import type { Tokenizer } from "./tokenizer/read-tokenizer.ts";

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
  /** Whether a chat template made the texts, so that nothing belongs around them or between them. */
  readonly isRendered?: boolean;
  /** Of the joined text (several texts: a zero byte between them), or of the token file's bytes. */
  readonly dataSha256: string;
}

export interface CorpusOptions extends Partial<TokenizeOptions>, RowOptions {
  /** What becomes of the documents, where no convention says so; by default each row and each file is a text. */
  readonly remake?: Remake | undefined;
  readonly convention?: ConventionName | undefined;
  /** Where tokens are kept; without it nothing is. */
  readonly cacheFolder?: string;
  readonly onNote?: ((note: string) => void) | undefined;
}

/** Loads texts through the tokenizer. In front of each goes its own prefix, or what the convention wants. */
export async function loadCorpus(
  split: DataSplit,
  tokenizer: Tokenizer,
  { cacheFolder, convention, onNote, ...given }: CorpusOptions = {},
): Promise<Corpus> {
  const { remake = given.remake, alwaysPrefixed } = convention ? conventions[convention] : {};
  const first = alwaysPrefixed ? (tokenizer.beginOfText ?? tokenizer.endOfText) : undefined;
  const own = tokenizer.prefix.length > 0 || first === undefined ? tokenizer.prefix : [first];
  const options = { prefix: own, ...given, remake };
  const place = cacheFolder !== undefined && {
    folder: cacheFolder,
    dependsOn: await basis(split, tokenizer, options),
  };
  const { texts, skipped, ...facts } = await throughCache(place, tokenizer.vocabSize, (emit) =>
    tokenizeSplit(split, tokenizer, options, emit),
  );
  const { count, why } = skipped;
  if (count > 0 && texts.length === 0)
    throw new UserError(`${split.description} holds no text: all rows, ${count}, are left out`, {
      hint: `the first: ${why}`,
    });
  if (count > 0) onNote?.(`${split.description}: rows left out: ${count}, first ${why}`);
  return corpusOf(split, texts, facts.isRendered ? 0 : options.prefix.length, facts);
}

/** Loads token files: nothing is added to them, and no tokenizer is needed. */
export async function loadTokenCorpus(split: DataSplit, vocabSize: number): Promise<Corpus> {
  const { format, files, part, limit = Infinity } = split;
  const reader = formats[format];
  invariant(reader.holds === "tokens", `${format} files hold no tokens`);
  const all: Stretched<Tokens>[] = [];
  let total = 0;
  for (const path of files) {
    if (total === limit) break;
    const whole = await reader.read(path, vocabSize);
    const tokens = whole.part(0, Math.min(whole.length, limit - total));
    total += tokens.length;
    all.push(tokens);
  }
  let cut = part ? Math.floor((1 - part.share) * total) : 0;
  const hash = createHash("sha256");
  const texts = all.flatMap((whole) => {
    const inside = Math.min(whole.length, cut);
    cut -= inside;
    const tokens = part?.side === "kept" ? whole.part(0, inside) : whole.part(inside, whole.length);
    for (const [ids] of stretchesOf(tokens)) hash.update(ids);
    return tokens.length > 0 ? [{ tokens }] : [];
  });
  const dataSha256 = hash.digest("hex");
  const facts = { utf8Bytes: undefined, numWords: null, isRendered: false, dataSha256 };
  return corpusOf(split, texts, 0, facts);
}

type Facts = Omit<Corpus, "texts" | "numTokens" | "numTargets">;

function corpusOf(
  { description, format, part }: DataSplit,
  texts: readonly TokenizedText[],
  prefixLength: number,
  facts: Facts,
): Corpus {
  if (texts.length > 0) return counted(texts, prefixLength, facts);
  throw new UserError(`${description} holds no ${formats[format].holds}`, {
    hint: part ? "bring more data, or hold out another share" : "is it the right file?",
  });
}

function counted(texts: readonly TokenizedText[], prefixLength: number, facts: Facts): Corpus {
  const numTokens = sum(texts.map(({ tokens }) => tokens.length));
  const numTargets = sum(texts.map((text) => countTargets(text, prefixLength)));
  return { ...facts, texts, numTokens, numTargets };
}

/** Several corpora as one, the texts of each behind those of the one before. */
export function joinCorpora(corpora: readonly Corpus[]): Corpus {
  if (corpora.length === 1) return corpora[0]!;
  const bytes = corpora.flatMap(({ utf8Bytes }) => utf8Bytes ?? []);
  const words = corpora.flatMap(({ numWords }) => numWords ?? []);
  const hash = createHash("sha256");
  for (const { dataSha256 } of corpora) hash.update(`${dataSha256}\n`);
  return {
    texts: corpora.flatMap(({ texts }) => texts),
    numTokens: sum(corpora.map(({ numTokens }) => numTokens)),
    numTargets: sum(corpora.map(({ numTargets }) => numTargets)),
    utf8Bytes: bytes.length === corpora.length ? sum(bytes) : undefined,
    numWords: words.length === corpora.length ? sum(words) : null,
    isRendered: corpora.every(({ isRendered }) => isRendered),
    dataSha256: hash.digest("hex"),
  };
}

/** All but a share of a corpus' tokens, and that share from its end; texts with targets of their own stay whole. */
export function cutCorpus(corpus: Corpus, share: number): readonly [kept: Corpus, end: Corpus] {
  const { texts, numTokens, dataSha256, isRendered = false } = corpus;
  let [at, cut] = [0, Math.floor((1 - share) * numTokens)];
  while (cut >= texts[at]!.tokens.length) cut -= texts[at++]!.tokens.length;
  const [text, before, after] = [texts[at]!, texts.slice(0, at), texts.slice(at + 1)];
  const { length } = text.tokens;
  const all = new Stretched(length, (start, end) => text.tokens.subarray(start, end));
  const [first, second] = [{ tokens: all.part(0, cut) }, { tokens: all.part(cut, length) }];
  const isWhole = text.isTarget !== undefined || cut < 2;
  const side = (name: string, texts: readonly TokenizedText[]) => {
    const hash = createHash("sha256").update(`${dataSha256} ${name} ${share}`).digest("hex");
    const facts = { utf8Bytes: undefined, numWords: null, isRendered, dataSha256: hash };
    return counted(texts, 0, facts);
  };
  return [
    side("kept", isWhole ? before : [...before, first]),
    side("end", [isWhole ? text : second, ...after]),
  ];
}

async function tokenizeSplit(
  split: DataSplit,
  tokenizer: Tokenizer,
  { remake, ...options }: CorpusOptions & TokenizeOptions,
  emit: EmitTokens,
) {
  const hash = createHash("sha256");
  const skipped = { count: 0, why: "" };
  let [utf8Bytes, isRendered] = [0, false];
  let numWords: number | null = null;
  /** Counts and hashes what documents were made of; a prompt's end is told from its text. */
  async function* observed(documents: DocumentStream): AsyncGenerator<Piece> {
    let isBetween = false;
    for await (const piece of documents) {
      const { text, isTarget, isLast, original = text } = piece;
      if (isBetween) hash.update("\0");
      isBetween = isLast;
      isRendered ||= piece.isRendered ?? false;
      hash.update(original);
      if (isTarget) utf8Bytes += Buffer.byteLength(original);
      else hash.update("\u0001");
      if (piece.original !== undefined) numWords = (numWords ?? 0) + countWords(original);
      yield piece;
    }
  }
  const documents = readDocuments(split, options, (why) => {
    if (skipped.count++ === 0) skipped.why = why;
  });
  const made = observed(remake?.of(documents) ?? documents);
  const layout = await tokenize(made, tokenizer, options, emit);
  const dataSha256 = hash.digest("hex");
  return { layout, facts: { utf8Bytes, numWords, skipped, isRendered, dataSha256 } };
}

/** Everything that the tokens depend on. */
async function basis(
  { format: file, files, part, limit }: DataSplit,
  { sha256: tokenizer }: Tokenizer,
  { prefix, remake, ...options }: CorpusOptions,
) {
  const hashes: string[] = [];
  for (const path of files) hashes.push(await sha256OfFile(path));
  const { format, textColumn, columns, lossOn, badRows, nullRows } = options;
  const rows = { format, textColumn, columns, lossOn, badRows, nullRows };
  const used = file === "txt" ? [] : [options.template, options.instructTemplate];
  const templates = used.map((template) => template?.sha256);
  return { file, hashes, part, limit, prefix, rows, templates, remade: remake?.name, tokenizer };
}

/** The documents of a split, or one side of them; `onSkip` is told of each row that is left out. */
export async function* readDocuments(
  { format, files, part, limit, bring }: DataSplit,
  options: RowOptions = {},
  onSkip?: (why: string) => void,
): AsyncGenerator<Piece> {
  const reader = formats[format];
  invariant(reader.holds === "text", `${format} files hold no text`);
  const { read } = reader;
  const whole = async function* () {
    const first = {};
    for (const path of files) {
      await bring?.(path);
      yield* read(path, { ...options, first });
    }
  };
  const open = () => (limit === undefined ? whole() : sideOf(whole(), "kept", limit));
  const documents = part ? partOf(open, part) : open();
  for await (const piece of documents)
    if (piece.skipped !== undefined) onSkip?.(piece.skipped);
    else yield piece;
}
