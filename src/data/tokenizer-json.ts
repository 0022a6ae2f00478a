// The parts of a Hugging Face tokenizer.json that decide where a text may be cut.

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
  readonly added_tokens: readonly AddedToken[];
}

/** A normalizer or a pre-tokenizer; `Sequence` holds others. */
export interface Step {
  readonly type: string;
  readonly normalizers?: readonly Step[];
  readonly pretokenizers?: readonly Step[];
  readonly prepend?: string;
  readonly pattern?: { readonly String?: string; readonly Regex?: string };
  readonly content?: string;
  readonly replacement?: string;
  readonly use_regex?: boolean;
  readonly add_prefix_space?: boolean;
  readonly behavior?: string;
}

export interface AddedToken {
  readonly id: number;
  readonly content: string;
  readonly lstrip?: boolean;
  readonly rstrip?: boolean;
}

/** tokenizer_config.json, which may be absent. */
export interface TokenizerConfig {
  readonly eos_token?: string | { readonly content: string } | null;
  readonly remove_space?: boolean;
  readonly do_lowercase_and_remove_accent?: boolean;
}

/** The steps in order, sequences opened. */
export function flatten(step: Step | null): readonly Step[] {
  if (step === null) return [];
  if (step.type !== "Sequence") return [step];
  return (step.normalizers ?? step.pretokenizers ?? []).flatMap((inner) => flatten(inner));
}
