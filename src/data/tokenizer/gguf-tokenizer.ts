// A GGUF file's tokenizer as the tokenizer.json that it was made from: byte-level BPE, whose cuts between words the
// file only names.

import { UserError } from "../../core/errors.ts";
import { type JsonObject, shown } from "../../core/json.ts";
import { wordsWith } from "./cuts.ts";

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
};

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
  if (model !== "gpt2") throw refuse(`is of the kind ${shown(model)}`);
  if (!Object.hasOwn(cuts, pre)) throw refuse(`cuts words by the rule ${shown(pre)}`);
  const { steps, ignoreMerges = false, normalizer = null } = cuts[pre]!;
  const list = (key: string): readonly unknown[] => {
    const value = at(key);
    return Array.isArray(value) ? value : [];
  };
  const [tokens, types] = [list("tokens").map(String), list("token_type")];
  const isAdded = (id: number) => types[id] === CONTROL || types[id] === USER_DEFINED;
  const added = tokens.flatMap((content, id) =>
    isAdded(id) ? [{ id, content, special: types[id] === CONTROL, normalized: false }] : [],
  );
  const named = (key: string) => tokens[Number(at(`${key}_token_id`) ?? NaN)];
  const isUsed = ([, id]: readonly [string, number]) => types[id] !== UNUSED;
  const ids = tokens.map((token, id) => [token, id] as const);
  const vocab = Object.fromEntries(ids.filter(isUsed));
  const json: JsonObject = {
    version: "1.0",
    added_tokens: added,
    normalizer,
    pre_tokenizer: { type: "Sequence", pretokenizers: steps },
    post_processor: null,
    decoder: byteLevel(true),
    model: { type: "BPE", vocab, merges: list("merges"), ignore_merges: ignoreMerges },
  };
  const config: JsonObject = {
    tokenizer_class: "PreTrainedTokenizerFast",
    bos_token: named("bos"),
    eos_token: named("eos"),
    add_bos_token: at("add_bos_token") ?? ignoreMerges,
    add_eos_token: at("add_eos_token") ?? false,
    chat_template: metadata.get("tokenizer.chat_template"),
  };
  return { json, config };
}
