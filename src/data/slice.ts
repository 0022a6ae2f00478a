// A corpus in two: what comes first, and an end of it that is kept for something else.

import { createHash } from "node:crypto";
import type { Corpus } from "./corpus.ts";
import { countTargets, Stretched, type TokenizedText } from "./document.ts";

/** All but a share of a corpus' tokens, and that share from its end; texts with targets of their own stay whole. */
export function cutCorpus(corpus: Corpus, share: number): readonly [kept: Corpus, end: Corpus] {
  const { texts, numTokens, dataSha256 } = corpus;
  let [at, cut] = [0, Math.floor((1 - share) * numTokens)];
  while (cut >= texts[at]!.tokens.length) cut -= texts[at++]!.tokens.length;
  const [text, whole] = [texts[at]!, texts.slice(0, at)];
  const isWhole = text.isTarget !== undefined || cut < 2;
  const side = (name: string, texts: readonly TokenizedText[]): Corpus => ({
    texts,
    numTokens: texts.reduce((sum, { tokens }) => sum + tokens.length, 0),
    numTargets: texts.reduce((sum, text) => sum + countTargets(text), 0),
    utf8Bytes: undefined,
    numWords: null,
    isRendered: corpus.isRendered ?? false,
    dataSha256: createHash("sha256").update(`${dataSha256} ${name} ${share}`).digest("hex"),
  });
  const { length } = text.tokens;
  const all = new Stretched(length, (start, end) => text.tokens.subarray(start, end));
  const [first, second] = [{ tokens: all.part(0, cut) }, { tokens: all.part(cut, length) }];
  return [
    side("kept", isWhole ? whole : [...whole, first]),
    side("end", [isWhole ? text : second, ...texts.slice(at + 1)]),
  ];
}
