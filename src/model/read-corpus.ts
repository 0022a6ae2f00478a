// A model's view of data: a split read through the model's own tokenizer, or token files as they are.

import type { OpenedModel } from "./open.ts";
import { UserError } from "../core/errors.ts";
import { type ConventionName, corpusOptions } from "../data/conventions.ts";
import { type Corpus, loadCorpus, loadTokenCorpus } from "../data/corpus.ts";
import type { DataSplit } from "../data/readers/data-files.ts";
import type { TokenizeProgress } from "../data/tokenizer/tokenize.ts";
import { loadTokenizer, type Tokenizer } from "../data/tokenizer/tokenizer.ts";

export interface ReadOptions {
  /** Column of rows that holds the text. */
  readonly field?: string;
  /** Makes one text of all rows, with this between them. */
  readonly separator?: string | undefined;
  readonly convention?: ConventionName | undefined;
  readonly threads?: number;
  readonly cacheFolder?: string;
  readonly onProgress?: (progress: TokenizeProgress) => void;
  readonly signal?: AbortSignal;
}

export interface ModelCorpus extends Corpus {
  /** Absent for token files, which need none. */
  readonly tokenizer?: Tokenizer;
}

/** A model's own tokenizer; one that gives ids beyond the model's vocabulary is refused. */
export async function tokenizerOf({ folder, model }: OpenedModel): Promise<Tokenizer> {
  const tokenizer = await loadTokenizer(folder);
  const { vocabSize } = model.config;
  if (tokenizer.vocabSize <= vocabSize) return tokenizer;
  throw new UserError(
    `${folder}: the tokenizer has ${tokenizer.vocabSize} tokens, the model ${vocabSize}`,
    { hint: "tokenizer.json and config.json are not of the same model" },
  );
}

/** Reads a split for a model. */
export async function readCorpus(
  opened: OpenedModel,
  split: DataSplit,
  { convention, separator, ...options }: ReadOptions = {},
): Promise<ModelCorpus> {
  if (split.format === "bin") return loadTokenCorpus(split, opened.model.config.vocabSize);
  const tokenizer = await tokenizerOf(opened);
  const corpus = await loadCorpus(split, tokenizer, {
    ...options,
    ...(separator !== undefined && { separator }),
    ...(convention && corpusOptions(convention, tokenizer)),
  });
  return { ...corpus, tokenizer };
}
