// The documents of a split: read as its format says, and cut in two where a share of their end is held out.

import { invariant } from "../core/errors.ts";
import type { DocumentStream, Piece } from "./document.ts";
import { type DataSplit, formats } from "./readers/files.ts";
import { type RowOptions, rowPieces } from "./readers/text.ts";

/** `onSkip` is told of each row that is left out. */
export async function* readDocuments(
  split: DataSplit,
  options: RowOptions = {},
  onSkip?: () => void,
): AsyncGenerator<Piece> {
  const { part } = split;
  const open = () => allDocuments(split, options);
  const documents = part ? sideOf(open(), part.side, await findCut(open, part.share)) : open();
  for await (const piece of documents)
    if (piece.isNull) onSkip?.();
    else yield piece;
}

async function* allDocuments({ format, files }: DataSplit, options: RowOptions) {
  const reader = formats[format];
  invariant(reader.holds !== "tokens", `${format} files hold no text`);
  for (const path of files) {
    if (reader.holds === "text") yield* reader.read(path);
    else for await (const row of reader.read(path, options)) yield* rowPieces(row, options);
  }
}

/** Held out is what follows the first `offset` characters of a document, and all documents after it. */
interface Cut {
  readonly document: number;
  readonly offset: number;
}

// Where a good place to cut is searched: up to this share of the asked share before the exact one.
const slack = 0.25;

/** Where a text may be cut, best first: after a line, a sentence, a word. */
const edges = [/\n/gu, /[.!?…]["'”’»)\]]*\s+|[。！？]/gu, /\s/gu];

/**
 * Reads the documents to find where to cut: between two where that is near enough to the asked share, else inside one,
 * at the best kind of edge that is near enough, and the last of its kind before the exact place.
 */
async function findCut(open: () => DocumentStream, share: number): Promise<Cut> {
  const lengths = [0];
  for await (const { text, isLast } of open()) {
    lengths[lengths.length - 1]! += text.length;
    if (isLast) lengths.push(0);
  }
  const total = lengths.reduce((sum, length) => sum + length);
  const exact = Math.round((1 - share) * total);
  let start = 0;
  let document = 0;
  while (document < lengths.length - 1 && start + lengths[document]! <= exact)
    start += lengths[document++]!;
  const earliest = exact - Math.floor(slack * share * total);
  if (start > 0 && start >= earliest) return { document, offset: 0 };
  const [begin, end] = [Math.max(0, earliest - start), exact - start];
  let text = "";
  const before = sideOf(open(), "kept", { document, offset: end });
  for await (const piece of sideOf(before, "held-out", { document, offset: begin }))
    text += piece.text;
  for (const edge of edges) {
    const last = [...text.matchAll(edge)].at(-1);
    if (last) return { document, offset: begin + last.index + last[0].length };
  }
  // Not between the halves of a character.
  return { document, offset: end - (/[\ud800-\udbff]$/.test(text) ? 1 : 0) };
}

/** The documents before the cut, or those after it. */
async function* sideOf(
  documents: DocumentStream,
  side: "kept" | "held-out",
  { document, offset }: Cut,
): AsyncGenerator<Piece> {
  let index = 0;
  let at = 0;
  for await (const piece of documents) {
    const size = piece.text.length;
    const before = index < document ? Infinity : index > document ? 0 : Math.max(0, offset - at);
    if (side === "kept") {
      if (before === 0) return;
      const isLast = piece.isLast || before <= size;
      yield { ...piece, text: piece.text.slice(0, before), isLast };
    } else if (before < size || before === 0) {
      yield { ...piece, text: piece.text.slice(before) };
    }
    at += size;
    if (piece.isLast) [index, at] = [index + 1, 0];
  }
}
