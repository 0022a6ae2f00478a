// Reading a Hugging Face config.json: every key is checked where it is read, and a setting that would change the
// mathematics without being implemented is refused by name.

import { UserError } from "../core/errors.ts";

/** What the rest of the program needs to know of any architecture. */
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
}

/** A key and what its absence means; without that, it must be there. */
export type Key<Value> = readonly [key: string, fallback?: Value];

/** A JSON object whose keys are read with their types; `path` names it in errors. */
export class ConfigReader {
  readonly path: string;
  readonly #json: Readonly<Record<string, unknown>>;
  readonly #asked = new Set<string>();

  constructor(path: string, json: Readonly<Record<string, unknown>>) {
    this.path = path;
    this.#json = json;
  }

  /** null counts as absent, as in Hugging Face's configs. */
  has(key: string): boolean {
    return this.#value(key) !== null;
  }

  #value(key: string): unknown {
    this.#asked.add(key);
    return this.#json[key] ?? null;
  }

  number(key: string, fallback?: number): number {
    return this.#read(key, "a number", (value) => typeof value === "number", fallback);
  }

  /** A positive integer. */
  count(key: string, fallback?: number): number {
    const isCount = (value: unknown) => Number.isInteger(value) && Number(value) > 0;
    return this.#read(key, "a positive integer", isCount, fallback);
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
    const value = this.#value(key);
    if (value === null || value === supported) return;
    throw new UserError(`${this.path}: ${key} = ${JSON.stringify(value)} is not supported`, {
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
    const value = this.#value(key);
    if (value === null) {
      if (fallback !== undefined) return fallback;
      throw new UserError(`${this.path}: "${key}" is missing, ${expected} is needed`);
    }
    if (!accepts(value))
      throw new UserError(
        `${this.path}: "${key}" must be ${expected}, found ${JSON.stringify(value)}`,
      );
    return value as Value;
  }
}
