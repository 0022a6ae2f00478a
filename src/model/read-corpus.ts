// A model's view of data: a split read through the model's own tokenizer, or token files as they are.

import type { OpenedModel } from "./open.ts";
import { UserError } from "../core/errors.ts";
import { type Corpus, type CorpusOptions, loadCorpus, loadTokenCorpus } from "../data/corpus.ts";
import { type DataSplit, formats } from "../data/readers/files.ts";
import { loadTokenizer, type Tokenizer } from "../data/tokenizer/tokenizer.ts";

/** Token files need no tokenizer. */
export type ModelCorpus = Corpus & { readonly tokenizer?: Tokenizer };

/** Reads a split for a model; an id beyond the model's vocabulary is refused where it occurs. */
export async function readCorpus(
  { folder, model }: OpenedModel,
  split: DataSplit,
  options: CorpusOptions = {},
): Promise<ModelCorpus> {
  const { vocabSize } = model.config;
  if (formats[split.format].holds === "tokens") return loadTokenCorpus(split, vocabSize);
  const tokenizer = await loadTokenizer(folder);
  const corpus = await loadCorpus(split, tokenizer, options);
  // More tokens than the model knows do no harm until one occurs, as a [PAD] that came later never does.
  const isUnknown = (id: number) => id >= vocabSize;
  const unknown =
    tokenizer.vocabSize > vocabSize
      ? corpus.texts.flatMap(({ tokens }) => tokens.find(isUnknown) ?? [])[0]
      : undefined;
  if (unknown === undefined) return { ...corpus, tokenizer };
  const token = JSON.stringify(tokenizer.pieceOf(unknown));
  throw new UserError(
    `${folder}: the tokenizer gives ${token} the id ${unknown}, and the model knows ${vocabSize} ids`,
    {
      hint: "tokenizer and config.json are not of the same model, or its embedding was not resized",
    },
  );
}
