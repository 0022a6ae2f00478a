// A Hugging Face tokenizer.json and its tokenizer_config.json: what they may hold, checked, as Python reads the two.

import * as library from "@huggingface/tokenizers";
import * as z from "zod";
import { isRecord, type JsonObject } from "../../core/json.ts";

// What @huggingface/tokenizers does for us; its encoding as a whole is slow, and differs from the reference at many edges.
// Its types name files without their endings, which is to say: none.
export const { SequencePostProcessor, SplitPreTokenizer, WordPiece } = library as unknown as {
  SequencePostProcessor: new (step: object) => {
    post_process: (tokens: readonly string[]) => { readonly tokens: readonly string[] };
  };
  SplitPreTokenizer: new (step: object) => { readonly pattern: RegExp };
  WordPiece: new (model: object) => { encode: (words: readonly string[]) => readonly string[] };
};

/** A text, or an expression as Oniguruma has it. */
export function expressionOf(pattern: object = {}): RegExp {
  if (Object.keys(pattern).length === 0) throw new Error("a pattern is absent");
  return new SplitPreTokenizer({ pattern }).pattern;
}

function optional<T extends z.ZodType, Name extends string>(type: T, ...names: readonly Name[]) {
  const entries = names.map((name) => [name, type.optional()]);
  return Object.fromEntries(entries) as Record<Name, z.ZodOptional<T>>;
}

/** A normalizer, a pre-tokenizer or a post-processor: the fields of any that are read here. */
const step = z.looseObject({
  type: z.string(),
  pattern: z.object(optional(z.string(), "String", "Regex")).optional(),
  ...optional(z.string(), "content", "prepend", "delimiter", "behavior", "precompiled_charsmap"),
  ...optional(z.string(), "replacement", "prepend_scheme"),
  ...optional(z.boolean(), "add_prefix_space", "split", "use_regex", "invert", "individual_digits"),
  ...optional(z.boolean(), "strip_left", "strip_right"),
  ...optional(z.boolean(), "clean_text", "handle_chinese_chars", "lowercase"),
  ...optional(z.boolean().nullable(), "strip_accents"),
  // Of post-processors, of which the library sees to the rest.
  special_tokens: z.record(z.string(), z.object({ ids: z.array(z.number()) })).optional(),
});
const steps = z.preprocess(opened, z.array(step));

const model = z.looseObject({
  type: z.enum(["BPE", "Unigram", "WordPiece", "WordLevel"]),
  vocab: z.instanceof(Object),
  merges: z.array(z.unknown()).nullish(),
  unk_id: z.number().nullish(),
  max_input_chars_per_word: z.number().optional(),
  ...optional(z.string().nullable(), "unk_token", "end_of_word_suffix"),
  ...optional(z.string().nullable(), "continuing_subword_prefix"),
  ...optional(z.boolean(), "fuse_unk", "byte_fallback", "ignore_merges"),
});
const scoredPieces = z.array(z.tuple([z.string(), z.number()]));

const token = z.object({
  content: z.string(),
  ...optional(z.boolean(), "single_word", "lstrip", "rstrip", "normalized", "special"),
});
const addedToken = token.extend({ id: z.number() });

const tokenizerJson = z.looseObject({
  model: z.preprocess(typed, model),
  normalizer: steps,
  pre_tokenizer: steps,
  post_processor: steps,
  decoder: z.looseObject({ type: z.string() }).nullish(),
  added_tokens: z.preprocess((list) => list ?? [], z.array(addedToken)),
});

const configuredToken = z.union([z.string(), token]).nullish();
const tokenizerConfig = z.looseObject({
  bos_token: configuredToken,
  eos_token: configuredToken,
  added_tokens_decoder: z.record(z.string(), token).nullish(),
  ...optional(z.boolean().nullable(), "add_bos_token", "add_eos_token", "add_prefix_space"),
});

export type Step = z.infer<typeof step>;
export type Model = z.infer<typeof model>;
export type AddedToken = z.infer<typeof addedToken>;
export type TokenizerJson = z.infer<typeof tokenizerJson>;
type TokenizerConfig = z.infer<typeof tokenizerConfig>;

/** The id of each piece of the vocabulary and of each added token. */
export type Vocabulary = ReadonlyMap<string, number>;

/** The steps in order, sequences opened. */
function opened(value: unknown): unknown[] {
  if (value === null || value === undefined) return [];
  const { type, ...fields } = isRecord(value) ? value : {};
  const inner = fields["normalizers"] ?? fields["pretokenizers"] ?? fields["processors"];
  return type === "Sequence" && Array.isArray(inner) ? inner.flatMap(opened) : [value];
}

/** A model with its type, which old files leave out. */
function typed(value: unknown): unknown {
  if (!isRecord(value)) return value;
  // A model of whole words has neither merges nor a mark within words.
  const inWords = value["continuing_subword_prefix"] == null ? "WordLevel" : "WordPiece";
  const usual = Array.isArray(value["vocab"]) ? "Unigram" : value["merges"] ? "BPE" : inWords;
  return { ...value, type: value["type"] ?? usual };
}

/** The first entry of another form than expected is thrown as one sentence. */
function parsed<T extends z.ZodType>(schema: T, value: unknown, where = ""): z.infer<T> {
  const { data, error } = schema.safeParse(value);
  if (!error) return data!;
  const { path, message } = error.issues[0]!;
  throw new Error(`${where}${z.core.toDotPath(path)}: ${message}`);
}

/** Checks parsed JSON, and adds the tokens that only the configuration names; what is wrong is thrown as one sentence. */
export function readTokenizerJson(whole: JsonObject, configuration: JsonObject) {
  const config = parsed(tokenizerConfig, configuration, "tokenizer_config.json has ");
  const json = parsed(tokenizerJson, whole);
  const { type, vocab } = json.model;
  const isScored = type === "Unigram";
  if (isScored !== Array.isArray(vocab)) throw new Error(`model.vocab is none of a ${type} model`);

  const ids = new Map<string, number>();
  const owners = new Map<number, string>();
  const own = (piece: string, id: number, where: string): void => {
    const [other = piece, before = id] = [owners.get(id), ids.get(piece)];
    const problem =
      (!(Number.isInteger(id) && id >= 0 && id < 2 ** 26) && "which is no whole number < 2^26") ||
      (other !== piece && `which ${JSON.stringify(other)} has`) ||
      (before !== id && `and elsewhere ${before}`);
    const given = () => `${where} gives ${JSON.stringify(piece)} the id ${JSON.stringify(id)}`;
    if (problem) throw new Error(`${given()}, ${problem}`);
    owners.set(id, piece);
    ids.set(piece, id);
  };
  // Of a scored piece that comes twice the last counts.
  const pieces = isScored
    ? new Map(parsed(scoredPieces, vocab, "model.vocab").map(([piece], id) => [piece, id]))
    : Object.entries(vocab);
  for (const [piece, id] of pieces) own(piece, id, "model.vocab");

  const added = new Map<string, AddedToken>();
  const add = (each: AddedToken, where: string): void => {
    own(each.content, each.id, where);
    added.set(each.content, each);
  };
  // Hugging Face's library numbers what the vocabulary lacks by its place in the list, whatever id stands there.
  let next = Object.keys(vocab).length;
  for (const each of json.added_tokens.filter(({ content }) => content)) {
    const isNew = !ids.has(each.content);
    add(each, "added_tokens");
    const given = `added_tokens gives ${JSON.stringify(each.content)} the id ${each.id}`;
    if (isNew && each.id !== next) throw new Error(`${given}, its place in the list ${next}`);
    next = Math.max(next, each.id + 1);
  }
  for (const [key, each] of Object.entries(config.added_tokens_decoder ?? {}))
    add({ ...each, id: ids.get(each.content) ?? Number(key) }, "added_tokens_decoder");
  // A special token that is configured is found in texts, whether or not the tokenizer's own list has it.
  for (const [key, value] of Object.entries(config)) {
    if (!/_token$|special_tokens$/.test(key)) continue;
    for (const each of [value].flat()) {
      const { data } = token.safeParse(typeof each === "string" ? { content: each } : each);
      if (!data?.content || added.has(data.content)) continue;
      const id = ids.get(data.content) ?? vocabSizeOf(ids);
      add({ ...data, id, special: true }, `${key} of tokenizer_config.json`);
    }
  }
  const specials = {
    /** One more than the highest token id. */
    vocabSize: vocabSizeOf(ids),
    ...tokensAround(json, config, ids),
    /** BOS, where one is configured. */
    beginOfText: firstOf(ids, config.bos_token),
    endOfText: firstOf(ids, config.eos_token, "<|endoftext|>", "</s>"),
  };
  return { json: { ...json, added_tokens: [...added.values()] }, ids, specials };
}

const vocabSizeOf = (ids: Vocabulary): number =>
  [...ids.values()].reduce((size, id) => Math.max(size, id + 1), 0);

/** The id of a piece that something in the file counts on. */
export function idOf(ids: Vocabulary, piece: string | null | undefined, user: string): number {
  const id = ids.get(piece ?? "");
  if (id === undefined) throw new Error(`${user} ${JSON.stringify(piece)}, not in the vocabulary`);
  return id;
}

/** The id of the first of the tokens that there is: a configured one always has one. */
const firstOf = (ids: Vocabulary, ...tokens: readonly z.infer<typeof configuredToken>[]) =>
  tokens
    .map((each) => ids.get((typeof each === "string" ? each : each?.content) ?? ""))
    .find((id) => id !== undefined);

function tokensAround(json: TokenizerJson, config: TokenizerConfig, ids: Vocabulary) {
  const { post_processor: processors } = json;
  const { tokens } = new SequencePostProcessor({ processors }).post_process([""]);
  const special = new Map(processors.flatMap((each) => Object.entries(each.special_tokens ?? {})));
  const idsOf = (names: readonly string[]) =>
    names.flatMap((name) => special.get(name)?.ids ?? [idOf(ids, name, "post_processor names")]);
  const textAt = tokens.indexOf("");
  const asked = (key: "bos" | "eos", own: readonly number[]): readonly number[] => {
    const adds = config[`add_${key}_token`];
    const id = firstOf(ids, config[`${key}_token`]);
    if (adds === false) return own.filter((each) => each !== id);
    if (!adds || (id !== undefined && own.includes(id))) return own;
    if (id === undefined) throw new Error(`add_${key}_token is true, and there is no ${key}_token`);
    return key === "bos" ? [id, ...own] : [...own, id];
  };
  // The special tokens that are put in front of a text and after it: the post-processor's, unless it is said which.
  return {
    prefix: asked("bos", idsOf(tokens.slice(0, textAt))),
    suffix: asked("eos", idsOf(tokens.slice(textAt + 1))),
  };
}
