// Where a text may be cut so that the tokens of the pieces, one after another, are those of the whole text. A cut lies
// between two characters that no token can span, proven from the tokenizer's own structure; where nothing is proven,
// nothing is cut.

import { flatten, type Step, type TokenizerJson } from "./tokenizer-json.ts";

export interface CutRule {
  /** Whether the text may be cut right before index `at` (0 < at < length − 1). */
  isCut(text: string, at: number): boolean;
  /** Characters to leave out after the cut: 1 where the tokenizer puts the mark of that space in front by itself. */
  readonly skip: 0 | 1;
}

/** The rule of a tokenizer; undefined where no cut is known to be safe. */
export function cutRule(json: TokenizerJson): CutRule | undefined {
  const { model, added_tokens: added } = json;
  // A token that swallows the spaces around it reaches over any cut at a space.
  const swallows = added.some(({ lstrip, rstrip }) => lstrip || rstrip);
  if (model.type !== "BPE" || swallows) return undefined;
  return byteLevelRule(json) ?? wordMarkRule(json);
}

/**
 * Byte-level BPE (GPT-2, GPT-NeoX, Llama 3): a regular expression splits the text into words, and no token is longer
 * than a word. No alternative of the known expressions matches a letter and then a non-letter, or a non-space and then
 * a space; none looks behind; the only look ahead, (?!\S) after spaces, ends before any of these cuts. Composition
 * (NFC) never joins an ASCII character to the one before it.
 */
function byteLevelRule(json: TokenizerJson): CutRule | undefined {
  const steps = flatten(json.pre_tokenizer);
  const last = steps.at(-1);
  const isKnown = steps.every(
    (step) => isKnownSplit(step) || (step === last ? isByteLevel(step) : step.type === "Digits"),
  );
  const splitsWords = steps.some((step) => isKnownSplit(step)) || last?.use_regex !== false;
  const composesOnly = flatten(json.normalizer).every(({ type }) => type === "NFC");
  const { unk_token: unknown, fuse_unk: fuses } = json.model;
  if (!last || !isKnown || !splitsWords || !composesOnly || (fuses && unknown != null))
    return undefined;

  const kinds = characterKinds();
  const inside = addedPairs(json);
  return {
    skip: 0,
    isCut(text, at) {
      const next = text.charCodeAt(at);
      if (next > 127) return false;
      const kind = kinds[text.charCodeAt(at - 1)];
      const isEdge =
        next === space ? kind !== spaceKind : kind === letterKind && kinds[next] !== letterKind;
      return isEdge && !inside.has(text.slice(at - 1, at + 1));
    },
  };
}

/**
 * BPE over whole texts whose spaces became word marks (SentencePiece, as Llama 2 has it): a token spans the characters
 * x and mark only if some merge joins a piece that ends in x to one that begins with the mark. Where the normalizer
 * puts a mark in front of each text, the space at the cut is left out and the next piece gets its mark that way.
 */
function wordMarkRule(json: TokenizerJson): CutRule | undefined {
  const { model } = json;
  const normalizers = flatten(json.normalizer);
  const preTokenizers = flatten(json.pre_tokenizer);
  const prepends = normalizers[0]?.type === "Prepend";
  const replaces = normalizers.at(-1)?.type === "Replace";
  const hasMetaspace = preTokenizers.length === 1 && preTokenizers[0]!.type === "Metaspace";
  const marks = [
    ...(prepends ? [normalizers[0]!.prepend] : []),
    ...(replaces && normalizers.at(-1)!.pattern?.String === " "
      ? [normalizers.at(-1)!.content]
      : []),
    ...(hasMetaspace ? [preTokenizers[0]!.replacement ?? wordMark] : []),
  ];
  const isKnown =
    marks.every((mark) => mark === wordMark) &&
    marks.length === normalizers.length + preTokenizers.length &&
    (hasMetaspace ? normalizers.length === 0 : replaces);
  const isOneWord =
    !model.ignore_merges && !model.end_of_word_suffix && !model.continuing_subword_prefix;
  // Unknown characters beside each other would become one token: the mark between them must be a known one.
  const keepsUnknownsApart =
    !model.fuse_unk || model.unk_token == null || Object.hasOwn(model.vocab, wordMark);
  if (!isKnown || !isOneWord || !keepsUnknownsApart) return undefined;

  const kinds = characterKinds();
  const inside = addedPairs(json);
  const joined = new Set<string>();
  for (const merge of model.merges ?? []) {
    const [left, right] = typeof merge === "string" ? merge.split(" ") : merge;
    if (left && right?.startsWith(wordMark)) joined.add(left.at(-1)!);
  }
  // A mark is put before text, not before an added token; and after one, it is put beside the space that is there.
  const addedStarts = new Set(json.added_tokens.map(({ content }) => content[0]));
  const addedEnds = new Set(json.added_tokens.map(({ content }) => content.at(-1)));
  return {
    skip: prepends ? 1 : 0,
    isCut(text, at) {
      if (text.charCodeAt(at) !== space) return false;
      const before = text[at - 1]!;
      const after = text[at + 1]!;
      return (
        kinds[before.charCodeAt(0)] !== spaceKind &&
        !joined.has(before) &&
        !inside.has(before + " ") &&
        !addedEnds.has(before) &&
        kinds[after.charCodeAt(0)] !== spaceKind &&
        after !== wordMark &&
        !addedStarts.has(after)
      );
    },
  };
}

const space = 32;
const wordMark = "\u2581";

// GPT-2's expression is the byte-level pre-tokenizer's own; these are of Llama 3 and of those that took it over.
const knownSplits = ["{1,3}", ""].map(
  (digits) =>
    String.raw`(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}` +
    digits +
    String.raw`| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+`,
);

function isKnownSplit({ type, pattern, behavior }: Step): boolean {
  return type === "Split" && behavior === "Isolated" && knownSplits.includes(pattern?.Regex ?? "");
}

/** A prefix space would be put before each piece that does not begin with one. */
function isByteLevel(step: Step): boolean {
  return step.type === "ByteLevel" && !step.add_prefix_space;
}

/** Neighbouring characters inside added tokens, which are found before anything else. */
function addedPairs({ added_tokens: tokens }: TokenizerJson): ReadonlySet<string> {
  const pairs = new Set<string>();
  for (const { content } of tokens)
    for (const form of [content, content.normalize("NFC")])
      for (let at = 1; at < form.length; at++) pairs.add(form.slice(at - 1, at + 1));
  return pairs;
}

const letterKind = 1;
const spaceKind = 2;

/** The kind of each UTF-16 unit: letter, space or neither (0); halves of surrogate pairs are neither. */
function characterKinds(): Uint8Array {
  const kinds = new Uint8Array(1 << 16);
  for (let code = 0; code < kinds.length; code++) {
    const character = String.fromCharCode(code);
    // U+0085 is a space to Unicode and U+FEFF to JavaScript: whichever the tokenizer follows, here they are both.
    if (/[\s\u0085]/.test(character)) kinds[code] = spaceKind;
    // Composition turns some letters into a letter and a mark, which would belong to what follows.
    else if (/^\p{L}+$/u.test(character.normalize("NFC"))) kinds[code] = letterKind;
  }
  return kinds;
}
