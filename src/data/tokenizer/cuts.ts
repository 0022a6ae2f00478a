// Where a text may be cut so that the tokens of the pieces, one after another, are those of the whole text. A cut lies
// between two characters that no token can span, proven from the tokenizer's own structure; where nothing is proven,
// nothing is cut.

import { sameJson } from "../../core/json.ts";
import { pairOf } from "./word-models.ts";
import type { Step, TokenizerJson } from "./tokenizer-json.ts";

export type CutRule = NonNullable<ReturnType<typeof cutRule>>;

/** The rule of a tokenizer; undefined where no cut is known to be safe. */
export function cutRule(json: TokenizerJson) {
  const { model, normalizer, added_tokens: added } = json;
  const isByteLevel = isByteLevelBpe(json);
  // A token that swallows the spaces around it reaches over any cut at a space.
  const swallows = added.some(({ lstrip, rstrip }) => lstrip || rstrip);
  if (model.type !== "BPE" || swallows || !(isByteLevel || isMarkedBpe(json))) return undefined;
  // Unknown characters beside each other would become one token: the mark between them must be a known one.
  const fuses = model.fuse_unk && model.unk_token != null;
  if (fuses && (isByteLevel || !Object.hasOwn(model.vocab, wordMark))) return undefined;
  const kinds = characterKinds();
  if (!isByteLevel) {
    const joined = (model.merges ?? []).map(pairOf).filter(([, right]) => right[0] === wordMark);
    // A mark is put before text, not before an added token; and after one, it is put beside the space that is there.
    const edges = added.flatMap(({ content }) => [content[0], content.at(-1)]);
    for (const unit of [wordMark, ...edges, ...joined.map(([left]) => left.at(-1))])
      if (unit) kinds[unit.charCodeAt(0)] = blocked;
  }
  // Neighbouring characters inside added tokens, which are found before anything else.
  const inside = new Set<string>();
  for (const { content } of added)
    for (const form of [content, content.normalize("NFC")])
      for (let at = 1; at < form.length; at++) inside.add(form.slice(at - 1, at + 1));
  return {
    /** Characters to leave out after the cut: 1 where the tokenizer puts the mark of that space in front by itself. */
    skip: normalizer[0]?.type === "Prepend" ? 1 : 0,
    /** Whether the text may be cut right before index `at` (0 < at < length − 1). */
    isCut(text: string, at: number): boolean {
      const next = text.charCodeAt(at);
      if (next > 127) return false;
      const kind = kinds[text.charCodeAt(at - 1)];
      const isEdge =
        next === space
          ? kind !== blocked && (isByteLevel || kinds[text.charCodeAt(at + 1)] !== blocked)
          : isByteLevel && kind === letter && kinds[next] !== letter;
      return isEdge && !inside.has(text.slice(at - 1, at + 1));
    },
  };
}

/**
 * Byte-level BPE (GPT-2, GPT-NeoX, Llama 3): a regular expression splits the text into words, and no token is longer
 * than a word. No alternative of the known expressions matches a letter and then a non-letter, or a non-space and then
 * a space; none looks behind; the only look ahead, (?!\S) after spaces, ends before any of these cuts. Composition
 * (NFC) never joins an ASCII character to the one before it.
 */
function isByteLevelBpe({ normalizer, pre_tokenizer: steps }: TokenizerJson): boolean {
  const last = steps.at(-1);
  // A prefix space would be put before each piece that does not begin with one.
  const isBytes = last?.type === "ByteLevel" && !last.add_prefix_space;
  const before = isBytes ? steps.slice(0, -1) : steps;
  const isKnown = before.every((step) => isKnownSplit(step) || step.type === "Digits");
  const splitsWords = steps.some(isKnownSplit) || (isBytes && last.use_regex !== false);
  const composesOnly = normalizer.every(({ type }) => type === "NFC");
  return isKnown && splitsWords && composesOnly;
}

/**
 * BPE over whole texts whose spaces became word marks (SentencePiece, as Llama 2 has it): a token spans the characters
 * x and mark only if some merge joins a piece that ends in x to one that begins with the mark. Where the normalizer
 * puts a mark in front of each text, the space at the cut is left out and the next piece gets its mark that way.
 */
function isMarkedBpe({ model, normalizer, pre_tokenizer: steps }: TokenizerJson): boolean {
  const replaces = { type: "Replace", pattern: { String: " " }, content: wordMark };
  const prepends = { type: "Prepend", prepend: wordMark };
  const [first, ...more] = [...normalizer, ...steps];
  const isMetaspace = first?.type === "Metaspace" && (first.replacement ?? wordMark) === wordMark;
  const isKnown = isMetaspace
    ? more.length === 0
    : steps.length === 0 &&
      [[replaces], [prepends, replaces]].some((form) => sameJson(normalizer, form));
  const isOneWord =
    !model.ignore_merges && !model.end_of_word_suffix && !model.continuing_subword_prefix;
  return isKnown && isOneWord;
}

const space = 32;
/** What SentencePiece has for a space. */
export const wordMark = "\u2581";

/** Words of GPT-4's kind, with so many digits in a row at most. */
export const wordsWith = (mostDigits: "{1,3}" | "") =>
  String.raw`(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}` +
  mostDigits +
  String.raw`| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+`;
// GPT-2's expression is the byte-level pre-tokenizer's own; these are of Llama 3 and of those that took it over.
const knownSplits = [wordsWith("{1,3}"), wordsWith("")];

const isKnownSplit = ({ type, pattern, behavior }: Step): boolean =>
  type === "Split" && behavior === "Isolated" && knownSplits.includes(pattern?.Regex ?? "");

const letter = 1;
const blocked = 2;

/** The kind of each UTF-16 unit: letter, blocked (no cut at a space beside it) or neither (0), as surrogates are. */
function characterKinds(): Uint8Array {
  const kinds = new Uint8Array(1 << 16);
  for (let code = 0; code < kinds.length; code++) {
    const character = String.fromCharCode(code);
    // U+0085 is a space to Unicode and U+FEFF to JavaScript: whichever the tokenizer follows, here they are both.
    if (/[\s\u0085]/.test(character)) kinds[code] = blocked;
    // Composition turns some letters into a letter and a mark, which would belong to what follows.
    else if (/^\p{L}+$/u.test(character.normalize("NFC"))) kinds[code] = letter;
  }
  return kinds;
}
