// A model's view of data: a split read through the model's own tokenizer, or token files as they are.

import type { OpenedModel } from "./open.ts";
import { UserError } from "../core/errors.ts";
import { type ConventionName, corpusOptions } from "../data/conventions.ts";
import {
  type Corpus,
  type CorpusOptions,
  holdsTokens,
  loadCorpus,
  loadTokenCorpus,
} from "../data/corpus.ts";
import type { DataSplit } from "../data/readers/files.ts";
import type { TokenizeProgress } from "../data/tokenizer/tokenize.ts";
import { loadTokenizer, type Tokenizer } from "../data/tokenizer/tokenizer.ts";

export interface ReadOptions {
  /** Column of rows that holds the text. */
  readonly field?: string;
  /** Makes one text of all rows, with this between them. */
  readonly separator?: string | undefined;
  readonly convention?: ConventionName | undefined;
  readonly remake?: Exclude<CorpusOptions["remake"], undefined>;
  readonly threads?: number;
  readonly cacheFolder?: string;
  readonly onProgress?: (progress: TokenizeProgress) => void;
  readonly signal?: AbortSignal;
}

export interface ModelCorpus extends Corpus {
  /** Absent for token files, which need none. */
  readonly tokenizer?: Tokenizer;
}

/** Reads a split for a model; an id beyond the model's vocabulary is refused where it occurs. */
export async function readCorpus(
  { folder, model }: OpenedModel,
  split: DataSplit,
  { convention, separator, ...options }: ReadOptions = {},
): Promise<ModelCorpus> {
  const { vocabSize } = model.config;
  if (holdsTokens(split)) return loadTokenCorpus(split, vocabSize);
  const tokenizer = await loadTokenizer(folder);
  const corpus = await loadCorpus(split, tokenizer, {
    ...options,
    ...(separator !== undefined && { separator }),
    ...(convention && corpusOptions(convention, tokenizer)),
  });
  // More tokens than the model knows do no harm until one occurs, as a [PAD] that came later never does.
  const unknown =
    tokenizer.vocabSize > vocabSize
      ? corpus.texts.flatMap(({ tokens }) => tokens.find((id) => id >= vocabSize) ?? [])[0]
      : undefined;
  if (unknown !== undefined)
    throw new UserError(
      `${folder}: the tokenizer gives ${JSON.stringify(tokenizer.pieceOf(unknown))} the id ${unknown}, and the model knows ${vocabSize} ids`,
      {
        hint: "tokenizer and config.json are not of the same model, or its embedding was not resized",
      },
    );
  return { ...corpus, tokenizer };
}
