// A Hugging Face tokenizer.json and its tokenizer_config.json: what they may hold, checked, as Python reads the two.

export interface TokenizerJson {
  readonly model: {
    readonly type: "BPE" | "Unigram" | "WordPiece" | "WordLevel";
    readonly vocab: Readonly<Record<string, number>> | readonly (readonly [string, number])[];
    readonly merges?: readonly (string | readonly [string, string])[];
    readonly unk_token?: string | null;
    readonly unk_id?: number | null;
    readonly fuse_unk?: boolean;
    readonly byte_fallback?: boolean;
    readonly ignore_merges?: boolean;
    readonly end_of_word_suffix?: string | null;
    readonly continuing_subword_prefix?: string | null;
    readonly max_input_chars_per_word?: number;
  };
  readonly normalizer: Step | null;
  readonly pre_tokenizer: Step | null;
  readonly post_processor: Step | null;
  readonly added_tokens: readonly AddedToken[];
}

/** A normalizer, a pre-tokenizer or a post-processor; `Sequence` holds others. */
export interface Step {
  readonly type: string;
  readonly normalizers?: readonly Step[];
  readonly pretokenizers?: readonly Step[];
  readonly processors?: readonly Step[];
  readonly prepend?: string;
  readonly pattern?: { readonly String?: string; readonly Regex?: string };
  readonly content?: string;
  readonly replacement?: string;
  readonly use_regex?: boolean;
  readonly add_prefix_space?: boolean;
  readonly prepend_scheme?: string;
  readonly split?: boolean;
  readonly behavior?: string;
  readonly invert?: boolean;
  readonly individual_digits?: boolean;
  readonly delimiter?: string;
  readonly strip_left?: boolean;
  readonly strip_right?: boolean;
  readonly clean_text?: boolean;
  readonly handle_chinese_chars?: boolean;
  readonly strip_accents?: boolean | null;
  readonly lowercase?: boolean;
  readonly single?: readonly { readonly SpecialToken?: { readonly id: string } }[];
  readonly special_tokens?: Readonly<Record<string, { readonly ids: readonly number[] }>>;
  readonly cls?: readonly [string, number];
  readonly sep?: readonly [string, number];
}

export interface AddedToken {
  readonly id: number;
  readonly content: string;
  readonly single_word?: boolean;
  readonly lstrip?: boolean;
  readonly rstrip?: boolean;
  readonly normalized?: boolean;
  readonly special?: boolean;
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
  json: unknown,
  config: TokenizerConfig,
): { readonly json: TokenizerJson; readonly ids: Vocabulary } {
  const { model, added_tokens: listed, ...steps } = json as TokenizerJson;
  if (typeof model?.vocab !== "object" || !model.vocab) throw new Error("it has no model.vocab");
  const isScored = Array.isArray(model.vocab);
  const type = model.type ?? (isScored ? "Unigram" : model.merges ? "BPE" : "WordPiece");
  if (isScored !== (type === "Unigram")) throw new Error(`model.vocab is none of a ${type} model`);

  const ids = new Map<string, number>();
  const owners = new Map<number, string>();
  const own = (piece: unknown, id: unknown, where: string): void => {
    if (typeof piece !== "string" || piece === "") throw new Error(`${where} has no content`);
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
    add({ ...token, id: Number(id) }, "added_tokens_decoder of tokenizer_config.json");
  // A special token that is configured is found in texts, whether or not the tokenizer's own list has it.
  for (const [key, value] of Object.entries(config)) {
    if (!key.endsWith("_token") || !value || typeof value === "boolean") continue;
    const token = typeof value === "string" ? { content: value } : (value as AddedToken);
    if (typeof token.content !== "string" || added.has(token.content)) continue;
    const id = ids.get(token.content) ?? vocabSizeOf(ids);
    add({ ...token, id, special: true }, `${key} of tokenizer_config.json`);
  }
  return { json: { ...steps, model: { ...model, type }, added_tokens: [...added.values()] }, ids };
}

/** The steps in order, sequences opened. */
export function flatten(step: Step | null | undefined): readonly Step[] {
  if (step === null || step === undefined) return [];
  if (typeof step.type !== "string") throw new Error(`a step has no type: ${JSON.stringify(step)}`);
  if (step.type !== "Sequence") return [step];
  const inner = step.normalizers ?? step.pretokenizers ?? step.processors ?? [];
  return inner.flatMap((each) => flatten(each));
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
      if (known.every(Number.isInteger)) return known as number[];
      throw new Error(`post_processor names ${JSON.stringify(token!.id)}, which has no id`);
    });
  const text = single.findIndex((item) => !item.SpecialToken);
  return [idsOf(0, text), idsOf(text + 1)];
}
