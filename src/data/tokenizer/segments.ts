// Cuts a stream of documents into jobs of about equal size whose tokens can be found apart from one another, and finds
// the tokens of a job.

import type { CutRule } from "./cuts.ts";
import type { Document, DocumentStream } from "../document.ts";
import { TokenBuffer, type Tokens } from "../tokens.ts";
import type { Tokenizer } from "./tokenizer.ts";

/** Stretches of documents in order, each with whether the document ends there. */
export interface Job {
  readonly stretches: { readonly document: Document; readonly isEnd: boolean }[];
  readonly characters: number;
}

/** Tokens that are all targets or none, up to where a document ends or the other kind begins. */
export interface TokenRun {
  readonly length: number;
  readonly isTarget: boolean;
  readonly isEnd: boolean;
}

/** Tokens of a job, one after another, in runs. */
export interface EncodedJob {
  readonly ids: Tokens;
  readonly runs: readonly TokenRun[];
}

/** Each job holds about `size` characters; more where a text has no safe cut for so long. */
export async function* tokenizingJobs(
  documents: DocumentStream,
  cuts: CutRule | undefined,
  size: number,
): AsyncGenerator<Job> {
  let job: { stretches: Job["stretches"]; characters: number } = { stretches: [], characters: 0 };
  let waiting: { text: string; isTarget: boolean }[] = [];
  let waitingSize = 0;
  const add = (document: Document, isEnd: boolean): void => {
    job.stretches.push({ document, isEnd });
    for (const { text } of document) job.characters += text.length;
  };
  for await (const { text, isTarget, isLast } of documents) {
    let last = waiting.at(-1);
    if (last?.isTarget === isTarget) last.text += text;
    else waiting.push((last = { text, isTarget }));
    waitingSize += text.length;
    if (isLast) {
      add(waiting, true);
      [waiting, waitingSize] = [[], 0];
    } else if (cuts && waitingSize >= size) {
      // What was joined before has no cut, but for its last characters, whose neighbours were not known.
      const whole = last.text;
      const at = lastCut(whole, cuts, Math.max(1, whole.length - text.length - 2));
      if (at !== undefined) {
        last.text = whole.slice(0, at);
        add(waiting, false);
        waiting = [{ text: whole.slice(at + cuts.skip), isTarget }];
        waitingSize = waiting[0]!.text.length;
      }
    }
    if (job.characters >= size) {
      yield job;
      job = { stretches: [], characters: 0 };
    }
  }
  if (job.stretches.length > 0) yield job;
}

function lastCut(text: string, cuts: CutRule, from: number): number | undefined {
  for (let at = text.length - 2; at >= from; at--) if (cuts.isCut(text, at)) return at;
  return undefined;
}

export function encodeJob(tokenizer: Tokenizer, { stretches }: Job): EncodedJob {
  const ids = new TokenBuffer(tokenizer.vocabSize);
  const runs = stretches.flatMap(({ document, isEnd }) => {
    const lengths = encodeDocument(tokenizer, document, ids);
    return document.map(({ isTarget }, i) => {
      return { length: lengths[i]!, isTarget, isEnd: isEnd && i === document.length - 1 };
    });
  });
  return { ids: ids.view().slice(), runs };
}

/**
 * Appends the tokens of the joined text, and gives how many belong to each segment; a token that spans a border belongs
 * to the segment after it. Only the word at a border is encoded more than once: whole, and up to the border.
 */
function encodeDocument(tokenizer: Tokenizer, document: Document, ids: TokenBuffer): number[] {
  const text = document.map((segment) => segment.text).join("");
  const { cuts, encode } = tokenizer;
  const isCut = (at: number) => at < text.length - 1 && cuts?.isCut(text, at);
  const skip = cuts?.skip ?? 0;
  const lengths = document.map(() => 0);
  const last = document.length - 1;
  const append = (segment: number, tokens: Tokens): void => {
    ids.append(tokens);
    lengths[segment]! += tokens.length;
  };
  let end = 0;
  const ends = document.map((segment) => (end += segment.text.length));
  let start = 0;
  for (let i = 0; i < last;) {
    const border = ends[i]!;
    let from = border;
    while (from > start && !isCut(from)) from--;
    if (from > start) append(i, encode(text.slice(start, from)));
    if (from > start) start = from + skip;
    if (border <= start) {
      i++;
      continue;
    }
    let to = border + 1;
    while (to < text.length && !isCut(to)) to++;
    const tokens = encode(text.slice(start, to));
    let done = 0;
    for (; i < last && ends[i]! < to; i++) {
      const before = encode(text.slice(start, ends[i]));
      const differs = before.findIndex((id, at) => id !== tokens[at]);
      const known = Math.max(done, differs < 0 ? before.length : differs);
      append(i, tokens.subarray(done, known));
      done = known;
    }
    append(i, tokens.subarray(done));
    start = Math.min(text.length, to + skip);
  }
  if (start < text.length || text === "") append(last, encode(text.slice(start)));
  return lengths;
}
