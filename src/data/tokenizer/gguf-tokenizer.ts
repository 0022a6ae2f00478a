// A GGUF file's tokenizer as the tokenizer.json that it was made from: byte-level BPE, whose cuts between words the
// file only names, or SentencePiece's BPE, whose merges the file has as scores of pieces.

import { UserError } from "../../core/errors.ts";
import { type JsonObject, shown } from "../../core/json.ts";
import { wordMark, wordsWith } from "./cuts.ts";

const digits = { type: "Digits", individual_digits: true };
const byteLevel = (use_regex: boolean) => {
  return { type: "ByteLevel", add_prefix_space: false, trim_offsets: true, use_regex };
};
const words = (mostDigits: "{1,3}" | "") => {
  const pattern = { Regex: wordsWith(mostDigits) };
  return { type: "Split", pattern, behavior: "Isolated", invert: false };
};
const gpt2 = { steps: [byteLevel(true)] };
const singleDigits = { steps: [digits, byteLevel(true)] };
const llama3 = { steps: [words("{1,3}"), byteLevel(false)], ignoreMerges: true };
const qwen2 = { steps: [words(""), byteLevel(false)], normalizer: { type: "NFC" } };

type Rule = { steps: readonly object[]; ignoreMerges?: boolean; normalizer?: object };
/** By llama.cpp's names for them. */
const cuts: Readonly<Record<string, Rule>> = {
  "gpt-2": gpt2,
  olmo: gpt2,
  "granite-docling": gpt2,
  smollm: singleDigits,
  starcoder: singleDigits,
  refact: singleDigits,
  dbrx: llama3,
  "llama-bpe": llama3,
  "smaug-bpe": llama3,
  qwen2,
  "deepseek-r1-qwen": qwen2,
};

/** Byte-level BPE of words. */
function ofWords({ steps, ignoreMerges = false, normalizer }: Rule, merges: unknown) {
  return {
    normalizer: normalizer ?? null,
    pre_tokenizer: { type: "Sequence", pretokenizers: steps },
    decoder: byteLevel(true),
    model: { merges, ignore_merges: ignoreMerges },
    addsBos: ignoreMerges,
  };
}

/** BPE of texts whose spaces are marks, also one `before` each text; what is no piece is bytes. */
function ofMarks(before: boolean, merges: unknown, unk_token: string | undefined) {
  const replace = (from: string, content: string) => {
    return { type: "Replace", pattern: { String: from }, content };
  };
  const [prepend, strip] = [
    { type: "Prepend", prepend: wordMark },
    { type: "Strip", content: " ", start: 1, stop: 0 },
  ];
  const decoders = [replace(wordMark, " "), { type: "ByteFallback" }, { type: "Fuse" }];
  return {
    normalizer: {
      type: "Sequence",
      normalizers: [...(before ? [prepend] : []), replace(" ", wordMark)],
    },
    pre_tokenizer: null,
    decoder: { type: "Sequence", decoders: [...decoders, ...(before ? [strip] : [])] },
    model: { merges, unk_token, fuse_unk: true, byte_fallback: true },
    addsBos: true,
  };
}

/** Any two pieces that are a third one together, those of the highest score first. */
function mergesByScore(vocab: ReadonlyMap<string, number>, scores: readonly unknown[]) {
  const idOf = (piece: string) => vocab.get(piece)!;
  const merges = [...vocab.keys()].flatMap((whole) =>
    Array.from({ length: whole.length - 1 }, (_, at) => [
      whole.slice(0, at + 1),
      whole.slice(at + 1),
    ])
      .filter((pair) => pair.every((piece) => vocab.has(piece)))
      .map(([left, right]) => ({ left: left!, right: right!, score: Number(scores[idOf(whole)]) }))
      .sort((a, b) => idOf(a.left) - idOf(b.left)),
  );
  return merges.sort((a, b) => b.score - a.score).map(({ left, right }) => [left, right]);
}

type Border = { readonly token: string | undefined; readonly isAdded: unknown };

/** What adds tokens before and after a text for those who do not read the configuration. */
function around(vocab: ReadonlyMap<string, number>, ...borders: readonly [Border, Border]) {
  const [before, after] = borders.map(({ token, isAdded }) =>
    isAdded === true && token !== undefined ? [token] : [],
  ) as [string[], string[]];
  const part = (id: "A" | "B") => {
    const place = (token: string) => ({ SpecialToken: { id: token, type_id: 0 } });
    return [...before.map(place), { Sequence: { id, type_id: 0 } }, ...after.map(place)];
  };
  const special = [...before, ...after].map((id) => [
    id,
    { id, ids: [vocab.get(id)], tokens: [id] },
  ]);
  return special.length === 0
    ? null
    : {
        type: "TemplateProcessing",
        single: part("A"),
        pair: [...part("A"), ...part("B")],
        special_tokens: Object.fromEntries(special),
      };
}

const UNKNOWN = 2;
const CONTROL = 3;
const USER_DEFINED = 4;
const UNUSED = 5;

/** The content of tokenizer.json and tokenizer_config.json; undefined where the file says that it has no tokenizer. */
export function tokenizerOfGguf(path: string, metadata: ReadonlyMap<string, unknown>) {
  const at = (key: string) => metadata.get(`tokenizer.ggml.${key}`);
  const text = (key: string, absent: string) => {
    const value = at(key) ?? absent;
    return typeof value === "string" ? value : shown(value);
  };
  const [model, pre] = [text("model", "no_vocab"), text("pre", "default")];
  if (model === "none" || model === "no_vocab") return undefined;
  const refuse = (what: string) =>
    new UserError(`${path}: its tokenizer ${what}, which is not read from GGUF`, {
      hint: "put the tokenizer.json of the model that it was made from beside the file",
    });
  const list = (key: string): readonly unknown[] => {
    const value = at(key);
    return Array.isArray(value) ? value : [];
  };
  const [tokens, types] = [list("tokens").map(String), list("token_type")];
  const added = tokens.flatMap((content, id) => {
    const special = types[id] === CONTROL || types[id] === UNKNOWN;
    const isAdded = special || types[id] === USER_DEFINED;
    return isAdded ? [{ id, content, special, normalized: false }] : [];
  });
  const named = (key: string) => tokens[Number(at(`${key}_token_id`) ?? NaN)];
  const isUsed = ([, id]: readonly [string, number]) => types[id] !== UNUSED;
  const ids = tokens.map((token, id) => [token, id] as const);
  const vocab = new Map(ids.filter(isUsed));
  const read = () => {
    if (model === "llama") {
      const scores = list("scores");
      if (scores.length !== tokens.length) throw refuse("has no score for each piece");
      const unknown = named("unknown") ?? tokens[types.indexOf(UNKNOWN)];
      return ofMarks(at("add_space_prefix") !== false, mergesByScore(vocab, scores), unknown);
    }
    if (model !== "gpt2") throw refuse(`is of the kind ${shown(model)}`);
    if (!Object.hasOwn(cuts, pre)) throw refuse(`cuts words by the rule ${shown(pre)}`);
    return ofWords(cuts[pre]!, list("merges"));
  };
  const { addsBos, ...whole } = read();
  const bos = { token: named("bos"), isAdded: at("add_bos_token") ?? addsBos };
  const eos = { token: named("eos"), isAdded: at("add_eos_token") ?? false };
  const json: JsonObject = {
    version: "1.0",
    added_tokens: added,
    ...whole,
    post_processor: around(vocab, bos, eos),
    model: { type: "BPE", vocab: Object.fromEntries(vocab), ...whole.model },
  };
  const config: JsonObject = {
    tokenizer_class: "PreTrainedTokenizerFast",
    bos_token: bos.token,
    eos_token: eos.token,
    add_bos_token: bos.isAdded,
    add_eos_token: eos.isAdded,
    chat_template: metadata.get("tokenizer.chat_template"),
  };
  return { json, config };
}
