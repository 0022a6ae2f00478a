// Texts into tokens, on as many threads as are given: this one and helpers, which start once there is enough to do.

import { setImmediate } from "node:timers/promises";
import type { Worker } from "node:worker_threads";
import { UserError } from "../../core/errors.ts";
import { startWorker } from "../../core/worker.ts";
import { encodeJob, tokenizingJobs, type EncodedJob, type Job } from "./segments.ts";
import type { DocumentStream, TokenizedText } from "../document.ts";
import type { Tokenizer } from "./tokenizer.ts";
import { TokenBuffer } from "../tokens.ts";

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

export interface TokenizeProgress {
  readonly characters: number;
  readonly tokens: number;
}

/** The tokens of all texts, one after another, and how many each has. Texts without a token are left out. */
export interface TokenizedTexts extends TokenizedText {
  readonly lengths: readonly number[];
}

// Jobs large enough that sending them costs nothing, small enough that this thread stays responsive between them.
const jobCharacters = 1 << 18;
const jobsUnderway = 32;

export async function tokenize(
  texts: DocumentStream,
  tokenizer: Tokenizer,
  { prefix, threads = 1, charactersAlone = 1 << 24, onProgress, signal }: TokenizeOptions,
): Promise<TokenizedTexts> {
  const tokens = new TokenBuffer(tokenizer.vocabSize);
  const lengths: number[] = [];
  /** Where tokens that are no targets begin and end. */
  const unscored: (readonly [number, number])[] = [];
  let characters = 0;
  let textStart = 0;
  const underway: { readonly job: Job; readonly result: Promise<EncodedJob> }[] = [];
  let helpers: Helper[] = [];
  let numJobs = 0;
  /** Appends the oldest job's tokens. */
  const collectFirst = async (): Promise<void> => {
    const { job, result } = underway.shift()!;
    const { ids, runs } = await result;
    let at = 0;
    for (const { length, isTarget, isEnd } of runs) {
      if (tokens.length === textStart && length > 0) tokens.append(prefix);
      if (!isTarget) unscored.push([tokens.length, tokens.length + length]);
      tokens.append(ids.subarray(at, (at += length)));
      if (!isEnd) continue;
      if (tokens.length > textStart) {
        tokens.append(tokenizer.suffix);
        lengths.push(tokens.length - textStart);
      }
      textStart = tokens.length;
    }
    characters += job.characters;
    onProgress?.({ characters, tokens: tokens.length });
  };
  try {
    for await (const job of tokenizingJobs(texts, tokenizer.cuts, jobCharacters)) {
      signal?.throwIfAborted();
      if (numJobs++ === Math.ceil(charactersAlone / jobCharacters)) {
        helpers = Array.from({ length: threads - 1 }, () => new Helper(tokenizer.folder));
      }
      const helper = helpers.find(({ isFree }) => isFree);
      const result = helper ? helper.encode(job) : Promise.resolve(encodeJob(tokenizer, job));
      result.catch(() => undefined); // told when its turn comes
      underway.push({ job, result });
      if (!helper) await setImmediate();
      while (underway.length > (helpers.length > 0 ? jobsUnderway : 0)) await collectFirst();
    }
    while (underway.length > 0) await collectFirst();
  } finally {
    for (const helper of helpers) helper.close();
  }
  if (unscored.length === 0) return { tokens: tokens.view(), lengths };
  const isTarget = new Uint8Array(tokens.length).fill(1);
  for (const [start, end] of unscored) isTarget.fill(0, start, end);
  return { tokens: tokens.view(), isTarget, lengths };
}

/** A thread that encodes beside this one; it has one job waiting while it works on another. */
class Helper {
  readonly #worker: Worker;
  readonly #waiting: {
    readonly resolve: (job: EncodedJob) => void;
    readonly reject: (error: Error) => void;
  }[] = [];

  constructor(folder: string) {
    this.#worker = startWorker("./tokenize-worker", import.meta.url, { workerData: { folder } });
    this.#worker.on("message", (reply: EncodedJob | string) => {
      const { resolve, reject } = this.#waiting.shift()!;
      if (typeof reply === "string") reject(new UserError(reply));
      else resolve(reply);
    });
    this.#worker.on("error", (error) => {
      for (const { reject } of this.#waiting.splice(0)) reject(error);
    });
  }

  get isFree(): boolean {
    return this.#waiting.length < 2;
  }

  encode(job: Job): Promise<EncodedJob> {
    return new Promise((resolve, reject) => {
      this.#waiting.push({ resolve, reject });
      this.#worker.postMessage(job);
    });
  }

  /** Asks the thread to end once it is idle: it holds native code, which must not be torn down at work. */
  close(): void {
    this.#worker.postMessage("close");
  }
}
