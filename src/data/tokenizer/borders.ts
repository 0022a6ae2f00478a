// Which tokens of a text are before a border in it, where tokens are those of the whole text and may span the border.

import { utf8 } from "./text-steps.ts";
import type { Model } from "./tokenizer-json.ts";

/** What is encoded by itself: an added token, or a word after all that is done to a text. */
export type Part = Readonly<{ surface: string; ids: readonly number[] }>;

interface Encoder {
  readonly partsOf: (text: string) => readonly Part[];
  readonly model: Model;
  readonly pieceOf: (id: number) => string | undefined;
}

/**
 * Gives how many tokens of the whole are before a border. Up to there the surfaces of the whole and of what is before it
 * are the same: where a character is changed by the one after it, it is not before the border. A token that spans it is
 * before it only where `isOfFirst`.
 */
export const bordersOf = (encoder: Encoder) => (text: string, at: number, isOfFirst: boolean) => {
  const whole = encoder.partsOf(text);
  // Where nothing is before it, it is behind the space that the mark in front of the text stands for.
  const before = at > 0 ? encoder.partsOf(text.slice(0, at)) : [{ surface: " ", ids: [] }];
  // Spaces in words have a mark in their place, those in added tokens have not.
  const surfaceOf = ({ surface }: Part) => surface.replaceAll(/[\u0120\u2581]/g, " ");
  const [all, head] = [whole, before].map((parts) => parts.map(surfaceOf).join(""));
  let border = 0;
  while (border < head!.length && head![border] === all![border]) border++;
  let [start, end, count] = [0, 0, 0];
  for (const part of whole) {
    for (const inside of tokenEnds(part, encoder)) {
      if (start + inside > border) return isOfFirst && end < border ? count + 1 : count;
      end = start + inside;
      count++;
    }
    start += part.surface.length;
  }
  return count;
};

function tokenEnds({ surface, ids }: Part, { model, pieceOf }: Encoder): readonly number[] {
  const { continuing_subword_prefix: prefix, end_of_word_suffix: suffix } = model;
  const continuing = prefix ?? (model.type === "WordPiece" ? "##" : "");
  const bare = (at: number) => {
    const piece = pieceOf(ids[at]!) ?? "";
    const inner = at > 0 && piece.startsWith(continuing) ? piece.slice(continuing.length) : piece;
    return suffix && at === ids.length - 1 && inner.endsWith(suffix)
      ? inner.slice(0, -suffix.length)
      : inner;
  };
  let at = 0;
  /** Bytes of the character at hand that have no token yet. */
  let bytes = 0;
  return ids.map((_, i) => {
    const piece = bare(i);
    if (surface.startsWith(piece, at) && piece) return (at += piece.length);
    const character = String.fromCodePoint(surface.codePointAt(at) ?? 0);
    if (model.byte_fallback && /^<0x[0-9A-F]{2}>$/.test(piece)) {
      bytes ||= utf8.encode(character).length;
      return --bytes === 0 ? (at += character.length) : at + character.length;
    }
    // The unknown token, up to where the next one is found; or one that follows what has no token at all.
    const found = surface.indexOf(piece, at);
    if (found >= 0 && piece) return (at = found + piece.length);
    const next = i + 1 < ids.length ? surface.indexOf(bare(i + 1), at) : surface.length;
    return (at = next > at ? next : at + character.length);
  });
}
