// Texts into tokens, on as many threads as are given: this one and helpers, which start once there is enough to do. The
// stream of documents is cut into jobs of about equal size whose tokens can be found apart from one another.

import { setImmediate } from "node:timers/promises";
import { openQueue } from "../../core/worker.ts";
import { createTokens, type DocumentStream, type Piece, type Tokens } from "../document.ts";
import type { CutRule } from "./cuts.ts";
import type { EncodedPieces, Tokenizer } from "./read-tokenizer.ts";

export interface TokenizeOptions {
  /** What is put in front of each text. */
  readonly prefix: readonly number[];
  /** Threads to use, this one included; the tokens do not depend on it. Default: 1. */
  readonly threads?: number;
  /** Characters that this thread does alone: helpers first have to load, and to meet each word themselves. */
  readonly charactersAlone?: number;
  /** Told now and then how many characters are done and how many tokens they gave. */
  readonly onProgress?: (progress: TokenizeProgress) => void;
  readonly signal?: AbortSignal;
}

export type TokenizeProgress = Readonly<{ characters: number; tokens: number }>;

/** Pieces of documents in order; the last one may go on in the next job. */
export type Job = readonly Piece[];

// Jobs large enough that sending them costs nothing, small enough that this thread stays responsive between them.
const jobCharacters = 1 << 18;
const jobsUnderway = 32;

/** Takes some tokens, which follow those before. */
export type EmitTokens = (tokens: Tokens) => Promise<void> | void;

export type TokenLayout = Awaited<ReturnType<typeof tokenize>>;

/** Emits the tokens of all texts in their order; texts without a token are left out. */
export async function tokenize(
  documents: DocumentStream,
  tokenizer: Tokenizer,
  { prefix, threads = 1, charactersAlone = 1 << 24, onProgress, signal }: TokenizeOptions,
  emit: EmitTokens,
) {
  const tokens: number[] = [];
  /** Of each text. */
  const lengths: number[] = [];
  /** Where tokens that are no targets begin and end, by turns. */
  const unscored: number[] = [];
  let characters = 0;
  /** Tokens that were emitted, and where the present text begins among all. */
  let [emitted, textStart] = [0, 0];
  const end = () => emitted + tokens.length;
  const underway: { readonly job: Job; readonly result: Promise<EncodedPieces> }[] = [];
  let helpers: ReturnType<typeof startHelper>[] = [];
  let numJobs = 0;
  /** Appends the oldest job's tokens. */
  const collectFirst = async (): Promise<void> => {
    const { job, result } = underway.shift()!;
    const encoded = await result;
    let at = 0;
    for (const [i, { text, isTarget, isLast, isRendered }] of job.entries()) {
      const length = encoded.lengths[i]!;
      if (end() === textStart && length > 0 && !isRendered) tokens.push(...prefix);
      if (!isTarget) unscored.push(end(), end() + length);
      for (const id of encoded.ids.subarray(at, (at += length))) tokens.push(id);
      characters += text.length;
      if (!isLast) continue;
      if (end() > textStart) {
        if (!isRendered) tokens.push(...tokenizer.suffix);
        lengths.push(end() - textStart);
      }
      textStart = end();
    }
    emitted = end();
    await emit(createTokens(tokens.splice(0), tokenizer.vocabSize));
    onProgress?.({ characters, tokens: emitted });
  };
  try {
    for await (const job of tokenizingJobs(documents, tokenizer.cuts, jobCharacters)) {
      signal?.throwIfAborted();
      if (numJobs++ === Math.ceil(charactersAlone / jobCharacters))
        helpers = Array.from({ length: threads - 1 }, () => startHelper(tokenizer.folder));
      // One job waits while a helper works on another.
      const helper = helpers.find(({ numWaiting }) => numWaiting() < 2);
      const result = helper ? helper.ask(job) : Promise.resolve(tokenizer.encode(job));
      result.catch(() => undefined); // told when its turn comes
      underway.push({ job, result });
      if (!helper) await setImmediate();
      while (underway.length > (helpers.length > 0 ? jobsUnderway : 0)) await collectFirst();
    }
    while (underway.length > 0) await collectFirst();
  } finally {
    for (const { close } of helpers) void close();
  }
  return { lengths, unscored };
}

/** Each job holds at least `size` characters; many more where a text has no safe cut for so long. */
export async function* tokenizingJobs(
  documents: DocumentStream,
  cuts: CutRule | undefined,
  size: number,
): AsyncGenerator<Job> {
  let job: Piece[] = [];
  let characters = 0;
  for await (const { text, isTarget, isLast, isRendered } of documents) {
    const flags = { isTarget, isLast, ...(isRendered && { isRendered }) };
    job.push({ text, ...flags });
    characters += text.length;
    if (characters < size) continue;
    const at = isLast ? text.length : lastCut(text, cuts);
    if (at === undefined) continue;
    job.splice(-1, 1, { text: text.slice(0, at), ...flags });
    yield job;
    const rest = text.slice(at + (cuts?.skip ?? 0));
    job = isLast ? [] : [{ text: rest, ...flags }];
    characters = isLast ? 0 : rest.length;
  }
  if (job.length > 0) yield job;
}

function lastCut(text: string, cuts: CutRule | undefined): number | undefined {
  for (let at = text.length - 2; at > 0; at--) if (cuts?.isCut(text, at)) return at;
  return undefined;
}

const startHelper = (folder: string) =>
  openQueue<(job: Job) => Promise<EncodedPieces>>("./tokenize-worker", import.meta.url, folder);
