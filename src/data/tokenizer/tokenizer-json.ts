// A Hugging Face tokenizer.json and its tokenizer_config.json: what they may hold, checked, as Python reads the two.

/** The plain fields of steps, models and added tokens that are read here; those with a question mark may be null. */
const fieldTypes = {
  type: "string",
  content: "string",
  prepend: "string",
  replacement: "string",
  prepend_scheme: "string",
  behavior: "string",
  delimiter: "string",
  precompiled_charsmap: "string",
  String: "string",
  Regex: "string",
  single_word: "boolean",
  lstrip: "boolean",
  rstrip: "boolean",
  normalized: "boolean",
  special: "boolean",
  use_regex: "boolean",
  add_prefix_space: "boolean",
  split: "boolean",
  invert: "boolean",
  individual_digits: "boolean",
  strip_left: "boolean",
  strip_right: "boolean",
  clean_text: "boolean",
  handle_chinese_chars: "boolean",
  strip_accents: "boolean?",
  lowercase: "boolean",
  fuse_unk: "boolean",
  byte_fallback: "boolean",
  ignore_merges: "boolean",
  max_input_chars_per_word: "number",
  unk_id: "number?",
  unk_token: "string?",
  end_of_word_suffix: "string?",
  continuing_subword_prefix: "string?",
} as const;

interface Types {
  readonly string: string;
  readonly boolean: boolean;
  readonly number: number;
}
type TypeOf<T> = T extends `${infer U extends keyof Types}?`
  ? Types[U] | null
  : Types[T & keyof Types];
type Fields = { readonly [K in keyof typeof fieldTypes]?: TypeOf<(typeof fieldTypes)[K]> };

export interface TokenizerJson {
  readonly model: Omit<Fields, "type"> & {
    readonly type: "BPE" | "Unigram" | "WordPiece" | "WordLevel";
    readonly vocab: Readonly<Record<string, number>> | readonly (readonly [string, number])[];
    readonly merges?: readonly (string | readonly [string, string])[];
  };
  readonly normalizer: Step | null;
  readonly pre_tokenizer: Step | null;
  readonly post_processor: Step | null;
  readonly added_tokens: readonly AddedToken[];
}

/** A normalizer, a pre-tokenizer or a post-processor; `Sequence` holds others. */
export interface Step extends Fields {
  readonly type: string;
  readonly normalizers?: readonly Step[];
  readonly pretokenizers?: readonly Step[];
  readonly processors?: readonly Step[];
  readonly pattern?: Pick<Fields, "String" | "Regex">;
  readonly single?: readonly { readonly SpecialToken?: { readonly id: string } }[];
  readonly special_tokens?: Readonly<Record<string, { readonly ids: readonly number[] }>>;
  readonly cls?: readonly [string, number];
  readonly sep?: readonly [string, number];
}

export interface AddedToken extends Fields {
  readonly id: number;
  readonly content: string;
}

type ConfiguredToken = string | Omit<AddedToken, "id"> | null;

/** tokenizer_config.json, which may be absent. */
export interface TokenizerConfig {
  readonly bos_token?: ConfiguredToken;
  readonly eos_token?: ConfiguredToken;
  readonly add_bos_token?: boolean | null;
  readonly add_eos_token?: boolean | null;
  readonly add_prefix_space?: boolean;
  readonly added_tokens_decoder?: Readonly<Record<string, Omit<AddedToken, "id">>>;
}

/** The id of each piece of the vocabulary and of each added token. */
export type Vocabulary = ReadonlyMap<string, number>;

/** Checks parsed JSON, and adds the tokens that only the configuration names; what is wrong is thrown as one sentence. */
export function readTokenizerJson(
  json: object,
  config: TokenizerConfig,
): { readonly json: TokenizerJson; readonly ids: Vocabulary } {
  const { model, added_tokens: listed, ...steps } = json as TokenizerJson;
  if (typeof model?.vocab !== "object" || !model.vocab) throw new Error("it has no model.vocab");
  const { vocab: _, merges, ...plain } = model;
  checkFields({ ...steps, model: plain, added_tokens: listed });
  checkFields(config.added_tokens_decoder, "added_tokens_decoder of tokenizer_config.json");
  if (!Array.isArray(merges ?? [])) throw new Error("model.merges is no list");
  const isScored = Array.isArray(model.vocab);
  // Old files do not say; a model of whole words has neither merges nor a mark within words.
  const inWords = model.continuing_subword_prefix == null ? "WordLevel" : "WordPiece";
  const type = model.type ?? (isScored ? "Unigram" : merges ? "BPE" : inWords);
  if (!["BPE", "Unigram", "WordPiece", "WordLevel"].includes(type))
    throw new Error(`model.type "${type}" is not known`);
  if (isScored !== (type === "Unigram")) throw new Error(`model.vocab is none of a ${type} model`);

  const ids = new Map<string, number>();
  const owners = new Map<number, string>();
  const own = (piece: unknown, id: unknown, where: string): void => {
    if (typeof piece !== "string") throw new Error(`${where} has no content`);
    if (id === undefined) throw new Error(`${where} gives ${JSON.stringify(piece)} no id`);
    const name = `${where} gives ${JSON.stringify(piece)} the id ${JSON.stringify(id)}`;
    if (!Number.isInteger(id) || !((id as number) >= 0 && (id as number) < 2 ** 31))
      throw new Error(`${name}, which is no whole number`);
    const [other, before] = [owners.get(id as number), ids.get(piece)];
    if ((other ?? piece) !== piece) throw new Error(`${name}, which ${JSON.stringify(other)} has`);
    if ((before ?? id) !== id) throw new Error(`${name}, and elsewhere ${before}`);
    owners.set(id as number, piece);
    ids.set(piece, id as number);
  };
  if (isScored)
    (model.vocab as readonly (readonly [string, number])[]).forEach((entry, id) => {
      if (typeof entry?.[0] !== "string" || !Number.isFinite(entry[1]))
        throw new Error(`model.vocab[${id}] is no piece with a score`);
      ids.set(entry[0], id);
      owners.set(id, entry[0]);
    });
  else for (const [piece, id] of Object.entries(model.vocab)) own(piece, id, "model.vocab");

  const added = new Map<string, AddedToken>();
  const add = (token: AddedToken, where: string): void => {
    own(token?.content, token?.id, where);
    added.set(token.content, token);
  };
  if (!Array.isArray(listed ?? [])) throw new Error("added_tokens is no list");
  (listed ?? []).forEach((token, i) => add(token, `added_tokens[${i}]`));
  for (const [id, token] of Object.entries(config.added_tokens_decoder ?? {}))
    add(
      { ...token, id: ids.get(token?.content) ?? Number(id) },
      "added_tokens_decoder of tokenizer_config.json",
    );
  // A special token that is configured is found in texts, whether or not the tokenizer's own list has it.
  const configured = Object.entries(config).filter(([key]) => /_token$|special_tokens$/.test(key));
  for (const [key, value] of configured.flatMap(([name, each]) =>
    [each].flat().map((one: unknown) => [name, one] as const),
  )) {
    const token = (typeof value === "string" ? { content: value } : (value ?? {})) as AddedToken;
    if (typeof token.content !== "string" || added.has(token.content)) continue;
    const id = ids.get(token.content) ?? vocabSizeOf(ids);
    add({ ...token, id, special: true }, `${key} of tokenizer_config.json`);
  }
  return { json: { ...steps, model: { ...model, type }, added_tokens: [...added.values()] }, ids };
}

/** Throws where a known field, however deep, has a value of another type. */
function checkFields(value: unknown, where = ""): void {
  if (typeof value !== "object" || !value) return;
  for (const [key, inner] of Object.entries(value)) {
    const path = Array.isArray(value) ? `${where}[${key}]` : where ? `${where}.${key}` : key;
    const type = Object.hasOwn(fieldTypes, key) && fieldTypes[key as keyof typeof fieldTypes];
    const isRight = !type || typeof inner === type.replace("?", "");
    if (!isRight && !(inner === null && type.endsWith("?")))
      throw new Error(`${path} is ${JSON.stringify(inner)}, no ${type.replace("?", "")}`);
    checkFields(inner, path);
  }
}

/** The steps in order, sequences opened. */
export function flatten(step: Step | null | undefined): readonly Step[] {
  if (step === null || step === undefined) return [];
  if (typeof step.type !== "string") throw new Error(`a step has no type: ${JSON.stringify(step)}`);
  if (step.type !== "Sequence") return [step];
  const inner = step.normalizers ?? step.pretokenizers ?? step.processors;
  if (!Array.isArray(inner)) throw new Error("a step of the type Sequence has no list of steps");
  return (inner as readonly Step[]).flatMap((each) => flatten(each));
}

/** One more than the highest id. */
export function vocabSizeOf(ids: Vocabulary): number {
  let size = 0;
  for (const id of ids.values()) size = Math.max(size, id + 1);
  return size;
}

/** The id of a configured token; where none is configured, of the first of the usual ones. */
export function specialToken(
  ids: Vocabulary,
  token: ConfiguredToken | undefined,
  usual: readonly string[] = [],
): number | undefined {
  if (token) return ids.get(typeof token === "string" ? token : token.content);
  return usual.map((content) => ids.get(content)).find((id) => id !== undefined);
}

/** The tokens that are put in front of a text and after it: the post-processor's, unless the configuration says which. */
export function tokensAround(
  { post_processor: processor }: TokenizerJson,
  config: TokenizerConfig,
  ids: Vocabulary,
): { readonly prefix: readonly number[]; readonly suffix: readonly number[] } {
  let [prefix, suffix]: (readonly number[])[] = [[], []];
  for (const step of flatten(processor)) {
    const [front, back] = aroundOf(step, ids);
    [prefix, suffix] = [
      [...front, ...prefix!],
      [...suffix!, ...back],
    ];
  }
  const asked = (key: "bos" | "eos", own: readonly number[]): readonly number[] => {
    const adds = config[`add_${key}_token`];
    const id = specialToken(ids, config[`${key}_token`]);
    if (adds === false) return own.filter((each) => each !== id);
    if (!adds || (id !== undefined && own.includes(id))) return own;
    if (id === undefined) throw new Error(`add_${key}_token is true, and there is no ${key}_token`);
    return key === "bos" ? [id, ...own] : [...own, id];
  };
  return { prefix: asked("bos", prefix!), suffix: asked("eos", suffix!) };
}

function aroundOf(step: Step, ids: Vocabulary): readonly [readonly number[], readonly number[]] {
  if (step.type === "ByteLevel") return [[], []];
  if (step.cls && step.sep) return [[step.cls[1]], [step.sep[1]]];
  if (step.type !== "TemplateProcessing" || !Array.isArray(step.single))
    throw new Error(`post_processor is of the unknown type "${step.type}"`);
  const { single, special_tokens: special } = step;
  const idsOf = (from: number, to?: number): number[] =>
    single.slice(from, to).flatMap(({ SpecialToken: token }) => {
      const known = special?.[token!.id]?.ids ?? [ids.get(token!.id)];
      if (known.every((id) => id !== undefined)) return known;
      throw new Error(`post_processor names ${JSON.stringify(token!.id)}, which has no id`);
    });
  const text = single.findIndex((item) => !item.SpecialToken);
  return [idsOf(0, text), idsOf(text + 1)];
}
