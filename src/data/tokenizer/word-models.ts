// How each kind of tokenizer model gives a word its ids.

import { mergePairs, readMerges } from "./pair-merging.ts";
import type { TokenizerJson, Vocabulary } from "./tokenizer-json.ts";

type Model = TokenizerJson["model"];
type WordModel = (word: string) => readonly number[];

/** By `model.type`. */
export const wordModels: Readonly<
  Record<Model["type"], (model: Model, ids: Vocabulary) => WordModel>
> = { BPE: pairMerging, Unigram: bestPath, WordPiece: longestFirst, WordLevel: wholeWords };

/** Byte-pair merging; characters outside the vocabulary become bytes or the unknown token before anything is merged. */
function pairMerging(model: Model, ids: Vocabulary): WordModel {
  const prefix = model.continuing_subword_prefix ?? "";
  const suffix = model.end_of_word_suffix ?? "";
  const pairs = model.merges ?? [];
  const merges = readMerges(
    pairs.map(pairOf),
    (piece) => found(ids, piece, "model.merges uses"),
    (left, right) => left + right.slice(prefix.length),
  );
  return (word) => {
    const whole = model.ignore_merges ? ids.get(word) : undefined;
    if (whole !== undefined) return [whole];
    const parts: number[] = [];
    let isUnknown = false;
    const addUnknown = (): void => {
      if (isUnknown) parts.push(found(ids, model.unk_token, "model.unk_token is"));
      isUnknown = false;
    };
    let at = 0;
    for (const character of word) {
      const isFirst = at === 0;
      at += character.length;
      const piece = (isFirst ? "" : prefix) + character + (at === word.length ? suffix : "");
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

function pairOf(merge: string | readonly [string, string]): readonly [string, string] {
  const [left, right, ...more] = typeof merge === "string" ? merge.split(" ") : (merge ?? []);
  if (left && right && more.length === 0) return [left, right];
  throw new Error(`model.merges has ${JSON.stringify(merge)}, no pair`);
}

/** The pieces of the highest sum of scores (Kudo, 2018); unknown characters beside each other are one piece. */
function bestPath(model: Model, ids: Vocabulary): WordModel {
  const entries = model.vocab as readonly (readonly [string, number])[];
  const scores = entries.map(([, score]) => score);
  const unknownScore = scores.reduce((a, b) => Math.min(a, b), Infinity) - 10;
  const longest = entries.reduce((length, [piece]) => Math.max(length, piece.length), 0);
  const unknownId = (): number => {
    if (model.unk_id != null) return model.unk_id;
    throw new Error("model.unk_id is absent, and the text has unknown characters");
  };
  return (word) => {
    const best = new Float64Array(word.length + 1).fill(-Infinity);
    const from = new Int32Array(word.length + 1);
    const isUnknown = new Uint8Array(word.length + 1);
    best[0] = 0;
    for (let at = 0, width; at < word.length; at += width) {
      width = word.codePointAt(at)! > 0xffff ? 2 : 1;
      let isKnown = false;
      const reach = (end: number, score: number, unknown: 0 | 1): void => {
        if (!(best[at]! + score > best[end]!)) return;
        [best[end], from[end], isUnknown[end]] = [best[at]! + score, at, unknown];
      };
      for (let end = at + width; end <= Math.min(word.length, at + longest); end++) {
        const id = ids.get(word.slice(at, end));
        if (id === undefined || scores[id] === undefined) continue;
        isKnown ||= end === at + width;
        reach(end, scores[id], 0);
      }
      if (!isKnown) reach(at + width, unknownScore, 1);
    }
    const pieces: string[] = [];
    for (let end = word.length; end > 0;) {
      let start = from[end]!;
      while (isUnknown[end] && start > 0 && isUnknown[start]) start = from[start]!;
      pieces.push(word.slice(start, end));
      end = start;
    }
    return pieces.reverse().flatMap((piece) => {
      const id = ids.get(piece);
      if (id !== undefined) return [id];
      return (model.byte_fallback && bytesOf(piece, ids)) || [unknownId()];
    });
  };
}

/** The longest piece at each place (Schuster & Nakajima, 2012); a word that does not work out is unknown. */
function longestFirst(model: Model, ids: Vocabulary): WordModel {
  const { continuing_subword_prefix: prefix = "##", max_input_chars_per_word: most = 100 } = model;
  return (word) => {
    const characters = Array.from(word);
    const unknown = () => [found(ids, model.unk_token, "model.unk_token is")];
    if (characters.length > most) return unknown();
    const parts: number[] = [];
    for (let start = 0, end; start < characters.length; start = end) {
      let id: number | undefined;
      for (end = characters.length + 1; id === undefined && --end > start;)
        id = ids.get((start > 0 ? prefix : "") + characters.slice(start, end).join(""));
      if (id === undefined) return unknown();
      parts.push(id);
    }
    return parts;
  };
}

function wholeWords(model: Model, ids: Vocabulary): WordModel {
  return (word) => [ids.get(word) ?? found(ids, model.unk_token, "model.unk_token is")];
}

/** The tokens of a piece's UTF-8 bytes, where the vocabulary has them all. */
function bytesOf(piece: string, ids: Vocabulary): readonly number[] | undefined {
  const hex = (byte: number) => byte.toString(16).toUpperCase().padStart(2, "0");
  const bytes = Array.from(Buffer.from(piece), (byte) => ids.get(`<0x${hex(byte)}>`));
  return bytes.every((id) => id !== undefined) ? bytes : undefined;
}

function found(ids: Vocabulary, piece: string | null | undefined, what: string): number {
  const id = ids.get(piece ?? "");
  if (id === undefined) throw new Error(`${what} ${JSON.stringify(piece)}, not in the vocabulary`);
  return id;
}
