// A part of a large data set: its first documents, as many as have so many tokens, and no more of its files than that takes.

import { setImmediate } from "node:timers/promises";
import { UserError } from "../core/errors.ts";
import { type CorpusOptions, readDocuments } from "./corpus.ts";
import type { DocumentStream, Piece } from "./document.ts";
import type { DataSplit } from "./readers/files.ts";
import { tokenizingJobs } from "./tokenizer/tokenize.ts";
import type { Tokenizer } from "./tokenizer/read-tokenizer.ts";

/** Where a long text may end is looked for this often. */
const sliceCharacters = 1024;

/**
 * The most whole documents from the start of a split that have at most `maxTokens` together; where they have less than
 * half of that, the beginning of the next one too, to a place where no token is cut in two. Files are brought as they
 * are reached.
 */
export async function limitSplit(
  { part, bring, ...split }: DataSplit,
  tokenizer: Tokenizer,
  maxTokens: number,
  options: CorpusOptions,
): Promise<DataSplit> {
  const files: string[] = [];
  const reached = async (file: string) => {
    await bring?.(file);
    files.push(file);
  };
  const documents = readDocuments({ ...split, bring: reached }, options);
  const around = tokenizer.prefix.length + tokenizer.suffix.length;
  // With those that stand around the next document.
  let numTokens = around;
  let [wholeTokens, at, end] = [0, 0, 0];
  for await (const job of tokenizingJobs(sliced(documents), tokenizer.cuts, sliceCharacters)) {
    options.signal?.throwIfAborted();
    await setImmediate();
    const { lengths } = tokenizer.encode(job);
    for (const [i, { text, isLast }] of job.entries()) {
      numTokens += lengths[i]!;
      if (numTokens > maxTokens) {
        if (end > 0) return { ...split, ...(part && { part }), files, limit: end };
        const problem = `${split.description} begins with more than ${maxTokens} tokens`;
        throw new UserError(problem, { hint: "raise --max-tokens" });
      }
      at += text.length;
      if (isLast || (i === job.length - 1 && 2 * wholeTokens < maxTokens)) end = at;
      if (!isLast) continue;
      wholeTokens = numTokens;
      numTokens += around;
    }
    options.onProgress?.({ characters: at, tokens: numTokens });
    if (!job.at(-1)!.isLast) at += tokenizer.cuts?.skip ?? 0;
  }
  return { ...split, ...(part && { part }) };
}

async function* sliced(documents: DocumentStream): AsyncGenerator<Piece> {
  for await (const piece of documents) {
    const { text, isLast } = piece;
    let at = 0;
    for (; at + sliceCharacters < text.length; at += sliceCharacters)
      yield { ...piece, text: text.slice(at, at + sliceCharacters), isLast: false };
    yield { ...piece, text: text.slice(at), isLast };
  }
}
