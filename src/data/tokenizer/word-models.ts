// How each kind of tokenizer model gives a word its ids.

import { utf8 } from "./text-steps.ts";
import { idOf, type Model, type Vocabulary, WordPiece } from "./tokenizer-json.ts";

type WordModel = (word: string) => readonly number[];

/** By `model.type`. */
export const wordModels: Readonly<
  Record<Model["type"], (model: Model, ids: Vocabulary) => WordModel>
> = {
  BPE: pairMerging,
  Unigram: bestPath,
  // The longest piece at each place (Schuster & Nakajima, 2012); a word that does not work out is unknown.
  WordPiece: ({ continuing_subword_prefix: prefix, ...model }, ids) => {
    const pieces = new WordPiece({ ...model, continuing_subword_prefix: prefix ?? "##" });
    return (word) => pieces.encode([word]).map((piece) => idOf(ids, piece, unknownIs));
  },
  WordLevel: (model, ids) => (word) => [ids.get(word) ?? idOf(ids, model.unk_token, unknownIs)],
};

const unknownIs = "model.unk_token is";

/** Byte-pair merging; characters outside the vocabulary become bytes or the unknown token before anything is merged. */
function pairMerging(model: Model, ids: Vocabulary): WordModel {
  const prefix = model.continuing_subword_prefix ?? "";
  const suffix = model.end_of_word_suffix ?? "";
  const known = (piece: string) => idOf(ids, piece, "model.merges uses");
  const merges = new Map(
    (model.merges ?? []).map((merge, rank) => {
      const [left, right] = pairOf(merge);
      const id = known(left + right.slice(prefix.length));
      return [keyOf(known(left), known(right)), { rank, id }];
    }),
  );
  return (word) => {
    const whole = model.ignore_merges ? ids.get(word) : undefined;
    if (whole !== undefined) return [whole];
    const parts: number[] = [];
    let isUnknown = false;
    const addUnknown = (): void => {
      if (isUnknown) parts.push(idOf(ids, model.unk_token, unknownIs));
      isUnknown = false;
    };
    let at = 0;
    for (const character of word) {
      const start = at === 0 ? "" : prefix;
      at += character.length;
      const piece = start + character + (at === word.length ? suffix : "");
      const id = ids.get(piece);
      const bytes = id === undefined && model.byte_fallback ? bytesOf(piece, ids) : undefined;
      if (id !== undefined) {
        addUnknown();
        parts.push(id);
      } else if (bytes) {
        parts.push(...bytes); // before an unknown token that is still open, as the reference has it
      } else if (model.unk_token != null) {
        if (!model.fuse_unk) addUnknown();
        isUnknown = true;
      }
    }
    addUnknown();
    return mergePairs(parts, merges);
  };
}

/** The pieces of the highest sum of scores (Kudo, 2018); unknown characters beside each other are one piece. */
function bestPath(model: Model, ids: Vocabulary): WordModel {
  const entries = model.vocab as readonly (readonly [string, number])[];
  const scores = new Map(entries);
  const unknownScore =
    entries.reduce((lowest, [, score]) => Math.min(lowest, score), Infinity) - 10;
  const longest = entries.reduce((length, [piece]) => Math.max(length, piece.length), 2);
  const idsOf = (piece: string): readonly number[] => {
    const id = scores.has(piece) ? ids.get(piece) : undefined;
    if (id !== undefined) return [id];
    const unknown = (model.byte_fallback && bytesOf(piece, ids)) || [model.unk_id];
    if (unknown[0] != null) return unknown as readonly number[];
    throw new Error("model.unk_id is absent, and the text has unknown characters");
  };
  return (word) => {
    // By the end of a piece: the best sum up to there, and where that piece begins.
    const best = new Float64Array(word.length + 1).fill(-Infinity);
    const from = new Int32Array(word.length + 1);
    best[0] = 0;
    for (let at = 0, width; at < word.length; at += width) {
      width = word.codePointAt(at)! > 0xffff ? 2 : 1;
      for (let end = at + width; end <= Math.min(word.length, at + longest); end++) {
        const single = end === at + width ? unknownScore : -Infinity;
        const sum = best[at]! + (scores.get(word.slice(at, end)) ?? single);
        if (sum > best[end]!) [best[end], from[end]] = [sum, at];
      }
    }
    const pieces: string[] = [];
    let isUnknown = false;
    for (let end = word.length; end > 0; end = from[end]!) {
      const piece = word.slice(from[end], end);
      const wasUnknown = isUnknown;
      isUnknown = !scores.has(piece);
      pieces.push(isUnknown && wasUnknown ? piece + pieces.pop()! : piece);
    }
    return pieces.reverse().flatMap(idsOf);
  };
}

/** The tokens of a piece's UTF-8 bytes, where the vocabulary has them all. */
function bytesOf(piece: string, ids: Vocabulary): readonly number[] | undefined {
  const hex = (byte: number) => byte.toString(16).toUpperCase().padStart(2, "0");
  const bytes = Array.from(utf8.encode(piece), (byte) => ids.get(`<0x${hex(byte)}>`));
  return bytes.every((id) => id !== undefined) ? bytes : undefined;
}

/** By the key of left and right: what the two become, and how early. */
type Merges = ReadonlyMap<number, { readonly rank: number; readonly id: number }>;

/** Of two ids, both under 2²⁶. */
const keyOf = (left: number, right: number): number => left * 2 ** 26 + right;

/** A merge as the file has it: two pieces, in one string in older ones. */
export function pairOf(merge: unknown): readonly [string, string] {
  const [left, right, ...more] = typeof merge === "string" ? merge.split(" ") : [merge].flat();
  const isPair = typeof left === "string" && typeof right === "string" && more.length === 0;
  if (isPair && left && right) return [left, right];
  throw new Error(`model.merges has ${JSON.stringify(merge)}, no pair`);
}

/**
 * Merges the pair of the lowest rank, the leftmost of several, until no pair has one (Sennrich et al., 2016), in time
 * that grows little faster than the word: words of SentencePiece's kind are whole lines.
 */
function mergePairs(ids: readonly number[], merges: Merges): number[] {
  const parts = [...ids];
  const next = parts.map((_, at) => at + 1);
  const previous = parts.map((_, at) => at - 1);
  const mergeAt = (at: number) => merges.get(keyOf(parts[at]!, parts[next[at]!]!));
  // A heap of rank and place, of which some are out of date when their turn comes.
  const waiting: number[] = [];
  const add = (at: number): void => {
    const merge = mergeAt(at);
    if (merge) push(waiting, merge.rank * places + at);
  };
  for (const at of parts.keys()) add(at);
  while (waiting.length > 0) {
    const key = pop(waiting);
    const at = key % places;
    const merge = mergeAt(at);
    if (merge?.rank !== Math.floor(key / places)) continue;
    const gone = next[at]!;
    parts[at] = merge.id;
    parts[gone] = -1;
    next[at] = next[gone]!;
    if (next[at] < parts.length) previous[next[at]] = at;
    add(at);
    if (previous[at]! >= 0) add(previous[at]!);
  }
  return parts.filter((id) => id >= 0);
}

const places = 2 ** 30;

function push(heap: number[], key: number, place = heap.length): void {
  let at = place;
  for (let parent; at > 0 && heap[(parent = (at - 1) >> 1)]! > key; at = parent)
    heap[at] = heap[parent]!;
  heap[at] = key;
}

function pop(heap: number[]): number {
  const lowest = heap[0]!;
  const last = heap.pop()!;
  let at = 0;
  for (let child; (child = 2 * at + 1) < heap.length; at = child) {
    if (heap[child + 1]! < heap[child]!) child++;
    heap[at] = heap[child]!;
  }
  if (heap.length > 0) push(heap, last, at);
  return lowest;
}
