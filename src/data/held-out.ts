// One side of documents whose end is held out: where they are cut, found in their text alone.

import type { DocumentStream } from "./document.ts";

export type Side = Readonly<{ side: "kept" | "held-out"; share: number }>;

/** The documents up to the cut, or from there on; they are read twice. */
export async function* partOf(open: () => DocumentStream, { side, share }: Side) {
  yield* sideOf(open(), side, await findCut(open, share));
}

// Where a good place to cut is searched: up to this share of the asked share before the exact one.
const slack = 0.25;

/** Where a text may be cut, best first: after a line, a sentence, a word. */
const edges = [/\n/gu, /[.!?…]["'”’»)\]]*\s+|[。！？]/gu, /\s/gu];

/**
 * Reads the documents to find behind how many characters to cut: between two documents where that is near enough to the
 * asked share, else inside one, at the best kind of edge that is near enough, and the last of its kind before the exact
 * place.
 */
async function findCut(open: () => DocumentStream, share: number): Promise<number> {
  const begins = [0];
  let total = 0;
  let isWhole = false;
  for await (const { text, isLast, isRendered } of open()) {
    total += text.length;
    isWhole ||= isRendered ?? false;
    if (isLast) begins.push(total);
  }
  const exact = Math.round((1 - share) * total);
  const earliest = exact - Math.floor(slack * share * total);
  const start = begins.findLast((begin) => begin <= exact)!;
  // Half a conversation is none.
  if (isWhole) return start || begins[1]!;
  if (start > 0 && start >= earliest) return start;
  const begin = Math.max(start, earliest);
  let text = "";
  for await (const piece of sideOf(sideOf(open(), "kept", exact), "held-out", begin))
    text += piece.text;
  for (const edge of edges) {
    const last = [...text.matchAll(edge)].at(-1);
    if (last) return begin + last.index + last[0].length;
  }
  // Not between the halves of a character.
  return exact - (/[\ud800-\udbff]$/.test(text) ? 1 : 0);
}

/** What is before the first `cut` characters, or all behind them. */
export async function* sideOf(documents: DocumentStream, side: Side["side"], cut: number) {
  let at = 0;
  let isStart = true;
  let isBehind = false;
  for await (const piece of documents) {
    const [size, before] = [piece.text.length, Math.max(0, cut - at)];
    if (side === "kept") {
      if (before === 0) return;
      const isLast = piece.isLast || before <= size;
      yield { ...piece, text: piece.text.slice(0, before), isLast };
    } else if ((isBehind ||= before < size || (isStart && before === 0))) {
      yield { ...piece, text: piece.text.slice(before) };
    }
    at += size;
    isStart = piece.isLast;
  }
}
