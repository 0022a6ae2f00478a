// A Hugging Face tokenizer.json: the parts that decide where a text may be cut, and what can be read from it alone.

export interface TokenizerJson {
  readonly model: {
    readonly type?: string;
    readonly vocab: Readonly<Record<string, number>> | readonly (readonly [string, number])[];
    readonly merges?: readonly (string | readonly [string, string])[];
    readonly unk_token?: string | null;
    readonly fuse_unk?: boolean;
    readonly ignore_merges?: boolean;
    readonly end_of_word_suffix?: string | null;
    readonly continuing_subword_suffix?: string | null;
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
  readonly behavior?: string;
  readonly single?: readonly { readonly SpecialToken?: { readonly id: string } }[];
}

export interface AddedToken {
  readonly id: number;
  readonly content: string;
  readonly lstrip?: boolean;
  readonly rstrip?: boolean;
}

/** tokenizer_config.json, which may be absent. */
export interface TokenizerConfig {
  readonly bos_token?: ConfiguredToken;
  readonly eos_token?: ConfiguredToken;
  readonly remove_space?: boolean;
  readonly do_lowercase_and_remove_accent?: boolean;
}

type ConfiguredToken = string | { readonly content: string } | null;

/** Whether parsed JSON has what the functions here rely on. */
export function isTokenizerJson(json: unknown): json is TokenizerJson {
  const { model, added_tokens: added } = (json ?? {}) as Partial<TokenizerJson>;
  return typeof model?.vocab === "object" && model.vocab !== null && Array.isArray(added);
}

/** The steps in order, sequences opened. */
export function flatten(step: Step | null | undefined): readonly Step[] {
  if (!step) return [];
  if (step.type !== "Sequence") return [step];
  const inner = step.normalizers ?? step.pretokenizers ?? step.processors ?? [];
  return inner.flatMap((each) => flatten(each));
}

/** One more than the highest id. */
export function vocabSizeOf({ model, added_tokens: added }: TokenizerJson): number {
  let size = 0;
  for (const [, id] of vocabularyOf(model)) size = Math.max(size, id + 1);
  for (const { id } of added) size = Math.max(size, id + 1);
  return size;
}

/** The id of a configured token; where none is configured, of the first of the usual ones. */
export function specialToken(
  json: TokenizerJson,
  token: ConfiguredToken | undefined,
  usual: readonly string[] = [],
): number | undefined {
  if (token) return tokenId(json, typeof token === "string" ? token : token.content);
  return usual.map((content) => tokenId(json, content)).find((id) => id !== undefined);
}

/** The special tokens that the post-processor puts in front of a text; undefined where that is not to be read here. */
export function templatePrefix(json: TokenizerJson): readonly number[] | undefined {
  const steps = flatten(json.post_processor).filter(({ type }) => type !== "ByteLevel");
  if (steps.length === 0) return [];
  const [step] = steps;
  if (steps.length > 1 || step?.type !== "TemplateProcessing" || !step.single) return undefined;
  const text = step.single.findIndex((item) => !item.SpecialToken);
  const ids = step.single.slice(0, text).map((item) => tokenId(json, item.SpecialToken!.id));
  return ids.every((id) => id !== undefined) ? ids : undefined;
}

function tokenId(
  { model, added_tokens: added }: TokenizerJson,
  content: string,
): number | undefined {
  const id = added.find((token) => token.content === content)?.id;
  return id ?? vocabularyOf(model).find(([piece]) => piece === content)?.[1];
}

/** Pieces and their ids; a list of pieces with scores (Unigram) is in the order of the ids. */
function vocabularyOf({ vocab }: TokenizerJson["model"]): (readonly [string, number])[] {
  return isList(vocab) ? vocab.map(([piece], id) => [piece, id]) : Object.entries(vocab);
}

function isList<T>(value: object | readonly T[]): value is readonly T[] {
  return Array.isArray(value);
}
