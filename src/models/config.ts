// Reading a Hugging Face config.json: every key is checked where it is read, and a setting that would change the
// mathematics without being implemented is refused by name.

import { UserError } from "../core/errors.ts";
import { shown } from "../core/json.ts";
import { type Activation, activationNamed } from "../nn/layers.ts";

/** What config.json says of a model of any family. */
export interface ModelConfig {
  readonly numLayers: number;
  readonly hiddenSize: number;
  readonly numHeads: number;
  readonly numKeyValueHeads: number;
  readonly headDim: number;
  readonly intermediateSize: number;
  readonly vocabSize: number;
  /** Longest window that the model was trained for, tokens. */
  readonly maxPositions: number;
  readonly normEpsilon: number;
  /** The output embedding is the input embedding. */
  readonly isTied: boolean;
  /** Standard deviation of random initial weights. */
  readonly initializerRange: number;
  readonly activation: Activation;
}

/** What the absence of a size means to a family. */
export interface SizeDefaults {
  readonly defaults: Pick<ModelConfig, "maxPositions" | "normEpsilon" | "activation" | "isTied">;
  /** null: hidden size over heads. */
  readonly headDim: number | null;
  /** Feed-forward over hidden size; null: it must be there. */
  readonly intermediateRatio: number | null;
}

export function readSizes(config: ConfigReader, family: SizeDefaults): ModelConfig {
  const { defaults, intermediateRatio: ratio } = family;
  const [hiddenSize, numHeads] = [config.count("hidden_size"), config.count("num_attention_heads")];
  const over = (total: number, parts: number, what: string): number => {
    if (total % parts === 0) return total / parts;
    throw new UserError(`${config.path}: ${what}: ${total} is not a multiple of ${parts}`);
  };
  const numKeyValueHeads = config.count("num_key_value_heads", numHeads);
  over(numHeads, numKeyValueHeads, "attention heads over key-value heads");
  const headDim = config.has("head_dim")
    ? config.count("head_dim")
    : (family.headDim ?? over(hiddenSize, numHeads, "hidden size over attention heads"));
  if (headDim > 2 ** 16) throw new UserError(`${config.path}: heads of ${headDim} dimensions`);
  return {
    // Before anything is made for each of them.
    numLayers: config.count("num_hidden_layers", undefined, 10_000),
    hiddenSize,
    numHeads,
    numKeyValueHeads,
    headDim,
    intermediateSize: config.count("intermediate_size", ratio ? ratio * hiddenSize : undefined),
    vocabSize: config.count("vocab_size"),
    maxPositions: config.count("max_position_embeddings", defaults.maxPositions),
    normEpsilon: config.positive("rms_norm_eps", defaults.normEpsilon),
    isTied: config.flag("tie_word_embeddings", defaults.isTied),
    initializerRange: config.number("initializer_range", 0.02),
    activation: activationNamed(config.text("hidden_act", defaults.activation), config.path),
  };
}

/** A JSON object whose keys are read with their types; `path` names it in errors. */
export class ConfigReader {
  readonly path: string;
  readonly #json: Readonly<Record<string, unknown>>;
  readonly #aliases: Readonly<Record<string, readonly string[]>>;
  readonly #asked = new Set<string>();

  constructor(
    path: string,
    json: Readonly<Record<string, unknown>>,
    aliases: Readonly<Record<string, readonly string[]>> = {},
  ) {
    this.path = path;
    this.#json = json;
    this.#aliases = aliases;
  }

  /** A setting and the name under which it stands; null counts as absent, as in Hugging Face's configs. */
  #find(key: string): { readonly name: string; readonly value: unknown } {
    const names = (Object.hasOwn(this.#aliases, key) && this.#aliases[key]) || [key];
    for (const name of [key, ...names]) this.#asked.add(name);
    const name = names.find((name) => (this.#json[name] ?? null) !== null) ?? names[0]!;
    return { name, value: this.#json[name] ?? null };
  }

  has(key: string): boolean {
    return this.#find(key).value !== null;
  }

  number(key: string, fallback?: number): number {
    return this.#read(key, "a number", Number.isFinite, fallback);
  }

  positive(key: string, fallback?: number): number {
    const isPositive = (value: unknown) => Number.isFinite(value) && Number(value) > 0;
    return this.#read(key, "a positive number", isPositive, fallback);
  }

  count(key: string, fallback?: number, most = 2 ** 31): number {
    const isCount = (value: unknown) =>
      Number.isInteger(value) && Number(value) > 0 && Number(value) <= most;
    const limit = most < 2 ** 31 ? ` of at most ${most}` : "";
    return this.#read(key, `a positive integer${limit}`, isCount, fallback);
  }

  /** A positive integer or null, where null says something else than an absent key. */
  countOrNull(key: string, fallback: number): number | null {
    return this.#json[key] === null ? null : this.count(key, fallback);
  }

  flag(key: string, fallback?: boolean): boolean {
    return this.#read(key, "true or false", (value) => typeof value === "boolean", fallback);
  }

  text(key: string, fallback?: string): string {
    return this.#read(key, "a string", (value) => typeof value === "string", fallback);
  }

  list(key: string): readonly unknown[] | undefined {
    return this.has(key) ? this.#read(key, "a list", Array.isArray) : undefined;
  }

  /** A nested object; undefined where absent or empty. */
  object(key: string): ConfigReader | undefined {
    const isObject = (value: unknown) => typeof value === "object" && !Array.isArray(value);
    const json = this.#read<Record<string, unknown>>(key, "an object", isObject, {});
    return Object.keys(json).length > 0
      ? new ConfigReader(`${this.path}: ${key}`, json)
      : undefined;
  }

  /** Refuses a setting that is present with another value than the supported one. */
  only(key: string, supported: unknown): void {
    const { name, value } = this.#find(key);
    if (value === null || value === supported) return;
    throw new UserError(`${this.path}: ${name} = ${shown(value)} is not supported`, {
      hint: `supported: ${JSON.stringify(supported)}`,
    });
  }

  /** Refuses what is set under a name that begins like this and that nothing has asked for. */
  refuseUnread(start = ""): void {
    for (const key of Object.keys(this.#json))
      if (key.startsWith(start) && !this.#asked.has(key)) this.only(key, null);
  }

  #read<Value>(
    key: string,
    expected: string,
    accepts: (value: unknown) => boolean,
    fallback?: Value,
  ): Value {
    const { name, value } = this.#find(key);
    if (value === null) {
      if (fallback !== undefined) return fallback;
      throw new UserError(`${this.path}: "${name}" is missing, ${expected} is needed`);
    }
    if (!accepts(value))
      throw new UserError(`${this.path}: "${name}" must be ${expected}, found ${shown(value)}`);
    return value as Value;
  }
}
