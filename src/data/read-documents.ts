// The documents of a split: read as its format says, and cut in two where a share of their end is held out.

import { invariant } from "../core/errors.ts";
import { piecesOf, type DocumentStream, type Piece } from "./document.ts";
import type { DataSplit } from "./readers/files.ts";
import { formats } from "./readers/formats.ts";
import { rowDocument } from "./readers/rows.ts";

/** `field` names the column of rows that holds the text; `text`, the default of every option, is no name. */
export async function* readDocuments(split: DataSplit, field?: string): AsyncGenerator<Piece> {
  const { part } = split;
  const named = field === "text" ? undefined : field;
  if (!part) yield* allDocuments(split, named);
  else {
    const cut = await findCut(() => allDocuments(split, named), part.share);
    yield* sideOf(allDocuments(split, named), part.side, cut);
  }
}

async function* allDocuments({ format, files }: DataSplit, named?: string): AsyncGenerator<Piece> {
  const reader = formats[format];
  invariant(reader.holds !== "tokens", `${format} files hold no text`);
  for (const path of files) {
    if (reader.holds === "text") yield* reader.read(path);
    else
      for await (const row of reader.read(path, named))
        for (const piece of piecesOf(rowDocument(row, named))) yield piece;
  }
}

/** Held out is what follows the first `offset` characters of a document, and all documents after it. */
export interface Cut {
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
export async function findCut(open: () => DocumentStream, share: number): Promise<Cut> {
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
  const begin = Math.max(0, earliest - start);
  const text = await stretch(open(), document, begin, exact - start);
  for (const edge of edges) {
    let end = 0;
    for (const { index, 0: found } of text.matchAll(edge)) end = index + found.length;
    if (end > 0) return { document, offset: begin + end };
  }
  // Not between the halves of a character.
  return { document, offset: exact - start - (/[\ud800-\udbff]$/.test(text) ? 1 : 0) };
}

async function stretch(documents: DocumentStream, document: number, begin: number, end: number) {
  let text = "";
  let at = 0;
  for await (const piece of documents) {
    if (document === 0) text += piece.text.slice(Math.max(0, begin - at), Math.max(0, end - at));
    if (document === 0 && piece.isLast) break;
    at += piece.text.length;
    if (piece.isLast) [document, at] = [document - 1, 0];
  }
  return text;
}

/** The documents before the cut, or those after it. */
export async function* sideOf(
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
