// Cuts a stream of texts into jobs of about equal size whose tokens can be found apart from one another.

import type { CutRule } from "./cuts.ts";
import type { TextStream } from "../readers/text.ts";

/** Strings to encode in order; `ends[i]` says whether a text ends with segment i. */
export interface Job {
  readonly segments: string[];
  readonly ends: boolean[];
}

/** Each job holds about `size` characters; more where a text has no safe cut for so long. */
export async function* tokenizingJobs(
  texts: TextStream,
  cuts: CutRule | undefined,
  size: number,
): AsyncGenerator<Job> {
  let job: Job = { segments: [], ends: [] };
  let jobSize = 0;
  let waiting: string[] = [];
  let waitingSize = 0;
  const add = (segment: string, isEnd: boolean): void => {
    job.segments.push(segment);
    job.ends.push(isEnd);
    jobSize += segment.length;
  };
  for await (const { text, isLast } of texts) {
    waiting.push(text);
    waitingSize += text.length;
    if (isLast) {
      add(waiting.join(""), true);
      [waiting, waitingSize] = [[], 0];
    } else if (cuts && waitingSize >= size) {
      // What was joined before has no cut, but for its last characters, whose neighbours were not known.
      const joined = waiting.join("");
      const at = lastCut(joined, cuts, Math.max(1, joined.length - text.length - 2));
      waiting = [joined];
      if (at !== undefined) {
        add(joined.slice(0, at), false);
        waiting = [joined.slice(at + cuts.skip)];
        waitingSize = waiting[0]!.length;
      }
    }
    if (jobSize >= size) {
      yield job;
      job = { segments: [], ends: [] };
      jobSize = 0;
    }
  }
  if (job.segments.length > 0) yield job;
}

function lastCut(text: string, cuts: CutRule, from: number): number | undefined {
  for (let at = text.length - 2; at >= from; at--) if (cuts.isCut(text, at)) return at;
  return undefined;
}
