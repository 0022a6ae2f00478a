// A corpus in two: what comes first, and an end of it that is kept for something else.

import { createHash } from "node:crypto";
import type { Corpus } from "./corpus.ts";
import { countTargets, Stretched, type TokenizedText } from "./document.ts";
import type { Tokens } from "./document.ts";

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
  const halves = isWhole
    ? [[], [text]]
    : [[partOf(text, 0, cut)], [partOf(text, cut, text.tokens.length)]];
  return [
    side("kept", [...whole, ...halves[0]!]),
    side("end", [...halves[1]!, ...texts.slice(at + 1)]),
  ];
}

const partOf = ({ tokens }: TokenizedText, from: number, to: number): TokenizedText => {
  const read = (start: number, end: number) => tokens.subarray(start, end);
  return { tokens: new Stretched<Tokens>(to - from, read, from) };
};
