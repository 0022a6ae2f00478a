// Normalizers and pre-tokenizers: what is done to a text before its words meet the model. Hugging Face's Rust library,
// which Python uses, is the reference; JavaScript's own \s, \w, \d and trim differ from its at the edges.

import { expressionOf, type Step } from "./tokenizer-json.ts";

type Normalizer = (text: string) => string;
/** `isStart`: whether the text begins there. */
type PreTokenizer = (text: string, isStart: boolean) => readonly string[];
type Table<T> = Readonly<Record<string, (step: Step) => T>>;

export const utf8 = new TextEncoder();

// GPT-2's printable stand-ins for the 256 bytes.
let nextCharacter = 256;
const characters = Array.from({ length: 256 }, (_, byte) => {
  const isPrintable = (byte > 32 && byte < 127) || (byte > 160 && byte !== 173);
  return String.fromCharCode(isPrintable ? byte : nextCharacter++);
});

function byteCharacters(text: string): string {
  let result = "";
  for (const byte of utf8.encode(text)) result += characters[byte]!;
  return result;
}

/** What pieces stand for, for people to read: bytes that begin a character are told with those that end it. */
export function spelled(isByteLevel: boolean, pieces: readonly (string | undefined)[]): string[] {
  const decoder = new TextDecoder();
  const bytesOf = (piece: string) =>
    isByteLevel && Array.from(piece).every((each) => characters.includes(each))
      ? Uint8Array.from(piece, (each) => characters.indexOf(each))
      : /^<0x[0-9A-F]{2}>$/.test(piece)
        ? Uint8Array.of(Number(piece.slice(1, -1)))
        : utf8.encode(piece.replaceAll("\u2581", " "));
  return pieces.map((piece = "") => decoder.decode(bytesOf(piece), { stream: true }));
}

export const spacesStart = /^\p{White_Space}*/u;
export const spacesEnd = /\p{White_Space}*$/u;
const form = (name: string) => (text: string) => text.normalize(name);
// Each character by itself, as the reference does: a final sigma is one like others.
const lowercase: Normalizer = (text) => text.replaceAll("Σ", "σ").toLowerCase();
const replacing = (pattern: RegExp, content: string) => (text: string) =>
  text.replace(pattern, () => content);

/** The steps one after another, but for those that are not wanted. */
function inOrder(...steps: readonly (Normalizer | false | undefined)[]): Normalizer {
  const wanted = steps.filter((step) => typeof step === "function");
  return (text) => wanted.reduce((result, step) => step(result), text);
}

/**
 * SentencePiece's own table of replacements: a trie in a double array (Aoe, 1989) from UTF-8 to places in a list of
 * strings that end in zeros.
 */
function precompiled(step: Step): Normalizer {
  const bytes = Uint8Array.from(atob(step.precompiled_charsmap ?? ""), (c) => c.charCodeAt(0));
  const numbers = new DataView(bytes.buffer);
  const listStart = 4 + numbers.getUint32(0, true);
  const unitAt = (node: number) =>
    4 * node + 8 > listStart ? 0 : numbers.getUint32(4 + 4 * node, true);
  const decoder = new TextDecoder("utf-8", { ignoreBOM: true });
  const offsetOf = (unit: number) => (unit >>> 10) << ((unit & 512) >>> 6);
  const replacement = (text: string): string | undefined => {
    let node = offsetOf(unitAt(0));
    for (const byte of utf8.encode(text)) {
      const unit = unitAt((node ^= byte));
      if (byte === 0 || (unit & 0x800000ff) !== byte) return undefined;
      node ^= offsetOf(unit);
      if (!(unit & 256)) continue;
      const start = listStart + (unitAt(node) & 0x7fffffff);
      return decoder.decode(bytes.subarray(start, Math.max(start, bytes.indexOf(0, start))));
    }
    return undefined;
  };
  const graphemes = new Intl.Segmenter("en", { granularity: "grapheme" });
  // A short cluster is looked up as a whole, others by character.
  return (text) =>
    Array.from(graphemes.segment(text), ({ segment }) => {
      const whole = utf8.encode(segment).length < 6 ? replacement(segment) : undefined;
      return whole ?? Array.from(segment, (each) => replacement(each) ?? each).join("");
    }).join("");
}

const normalizers: Table<Normalizer> = {
  NFC: () => form("NFC"),
  NFD: () => form("NFD"),
  NFKC: () => form("NFKC"),
  NFKD: () => form("NFKD"),
  Lowercase: () => lowercase,
  StripAccents: () => replacing(/\p{M}/gu, ""),
  Prepend: ({ prepend = "" }) => replacing(/^(?=[^])/u, prepend),
  Strip: ({ strip_left: left, strip_right: right }) =>
    inOrder(left && replacing(spacesStart, ""), right && replacing(spacesEnd, "")),
  Replace: ({ pattern, content = "" }) => replacing(expressionOf(pattern), content),
  ByteLevel: () => byteCharacters,
  Precompiled: precompiled,
  BertNormalizer: (step) => {
    const { clean_text: cleans = true, handle_chinese_chars: spaces = true } = step;
    const { lowercase: lowers = true, strip_accents: strips = lowers } = step;
    const bares = strips ?? lowers;
    return inOrder(
      cleans && replacing(/(?![\t\n\r])[\0\ufffd\p{Cc}\p{Cf}\p{Co}]/gu, ""),
      cleans && replacing(/\p{White_Space}/gu, " "),
      spaces && ((text) => text.replace(ideographs, " $& ")),
      bares && form("NFD"),
      bares && replacing(/\p{Mn}/gu, ""),
      lowers && lowercase,
    );
  },
};

const ideographs =
  /[\u4e00-\u9fff\u3400-\u4dbf\u{20000}-\u{2a6df}\u{2a700}-\u{2b81f}\u{2b920}-\u{2ceaf}\uf900-\ufaff\u{2f800}-\u{2fa1f}]/gu;
const punctuation = { Regex: String.raw`[\p{P}!-\/:-@\[-\x60{-~]` };
const spaces = { Regex: String.raw`\s` };
const gpt2Words = {
  Regex: String.raw`'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+`,
};

const preTokenizers: Table<PreTokenizer> = {
  Split: ({ pattern, behavior, invert }) => splitter(pattern, behavior, invert),
  Whitespace: () => splitter({ Regex: String.raw`\w+|[^\w\s]+` }, "Removed", true),
  WhitespaceSplit: () => splitter(spaces, "Removed"),
  BertPreTokenizer: () => inTurn([splitter(spaces, "Removed"), splitter(punctuation, "Isolated")]),
  Punctuation: ({ behavior = "Isolated" }) => splitter(punctuation, behavior),
  Digits: ({ individual_digits: single }) =>
    splitter({ Regex: String.raw`\p{N}` }, single ? "Isolated" : "Contiguous"),
  CharDelimiterSplit: ({ delimiter = "" }) => splitter({ String: delimiter }, "Removed"),
  ByteLevel: ({ add_prefix_space: prefixes = true, use_regex: splits = true }) => {
    const words = splits ? splitter(gpt2Words, "Isolated") : (text: string) => [text];
    return (text, isStart) =>
      words(prefixes && !text.startsWith(" ") ? ` ${text}` : text, isStart).map(byteCharacters);
  },
  Metaspace: (step) => {
    const { replacement = "\u2581", split = true, add_prefix_space: prefixes = true } = step;
    const scheme = prefixes ? (step.prepend_scheme ?? "always") : "never";
    const pieces = split && splitter({ String: replacement }, "MergedWithNext");
    return (text, isStart) => {
      const marked = text.replaceAll(" ", () => replacement);
      const isBare = !marked.startsWith(replacement);
      const prefixed = isBare && (scheme === "always" || (scheme === "first" && isStart));
      const whole = prefixed ? replacement + marked : marked;
      return pieces ? pieces(whole, isStart) : [whole];
    };
  },
};

const behaviors = ["Removed", "Isolated", "Contiguous", "MergedWithPrevious", "MergedWithNext"];

/** Cuts a text where matches of an expression begin and end; inverted, what lies between counts as the match. */
function splitter(pattern: Step["pattern"], behavior = "", inverts = false): PreTokenizer {
  const expression = expressionOf(pattern);
  if (!behaviors.includes(behavior)) throw new Error(`no behavior "${behavior}" of a split`);
  return (text) => {
    const pieces: string[] = [];
    let before: boolean | undefined;
    const add = (piece: string, isMatch: boolean): void => {
      if (piece === "") return;
      const joins =
        (behavior === "Contiguous" && isMatch === before) ||
        (behavior === "MergedWithPrevious" && isMatch && before === false) ||
        (behavior === "MergedWithNext" && !isMatch && before === true);
      if (joins) pieces.push(pieces.pop()! + piece);
      else if (!isMatch || behavior !== "Removed") pieces.push(piece);
      before = isMatch;
    };
    let end = 0;
    for (const { 0: match, index } of text.matchAll(expression)) {
      add(text.slice(end, index), inverts);
      add(match, !inverts);
      end = index + match.length;
    }
    add(text.slice(end), inverts);
    return pieces;
  };
}

const inTurn =
  (steps: readonly PreTokenizer[]): PreTokenizer =>
  (text, isStart) =>
    steps.reduce<readonly string[]>(
      (pieces, step) => pieces.flatMap((piece, i) => step(piece, isStart && i === 0)),
      [text],
    );

/** What the rows of a table make of steps. */
function made<T>(table: Table<T>, steps: readonly Step[], what: string): T[] {
  return steps.map((step) => {
    if (Object.hasOwn(table, step.type)) return table[step.type]!(step);
    const known = Object.keys(table).join(", ");
    throw new Error(`${what} is of the type "${step.type}", only ${known} are known`);
  });
}

export const normalizerOf = (steps: readonly Step[]) =>
  inOrder(...made(normalizers, steps, "normalizer"));
export const preTokenizerOf = (steps: readonly Step[]) =>
  inTurn(made(preTokenizers, steps, "pre_tokenizer"));
