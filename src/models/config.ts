// Reading a Hugging Face config.json: every key is checked where it is read, and a setting that would change the
// mathematics without being implemented is refused by name.

import { UserError } from "../core/errors.ts";
import { isRecord, type JsonObject, shown } from "../core/json.ts";
import { activationNamed } from "../nn/layers.ts";
import type { Family } from "./family.ts";

export type ModelConfig = Readonly<ReturnType<typeof readSizes>>;

/** What config.json says of a model of any family. */
export function readSizes(config: ConfigReader, family: Family) {
  const { defaults, intermediateRatio: ratio } = family;
  const [hiddenSize, numHeads] = [config.count("hidden_size"), config.count("num_attention_heads")];
  const over = (total: number, parts: number, what: string): number => {
    if (total % parts === 0) return total / parts;
    throw new UserError(`${config.path}: ${what}: ${total} is not a multiple of ${parts}`);
  };
  const absent = config.isNull("num_key_value_heads") ? undefined : family.keyValueHeads;
  const numKeyValueHeads = config.count("num_key_value_heads", absent ?? numHeads);
  over(numHeads, numKeyValueHeads, "attention heads over key-value heads");
  const headDim = config.has("head_dim")
    ? config.count("head_dim")
    : (family.headDim ?? over(hiddenSize, numHeads, "hidden size over attention heads"));
  if (headDim > 2 ** 16) throw new UserError(`${config.path}: heads of ${headDim} dimensions`);
  return {
    numLayers: config.layers("num_hidden_layers"),
    hiddenSize,
    numHeads,
    numKeyValueHeads,
    headDim,
    intermediateSize: config.count("intermediate_size", ratio && ratio * hiddenSize),
    vocabSize: config.count("vocab_size"),
    /** Longest window that the model was trained for, tokens. */
    maxPositions: config.count("max_position_embeddings", defaults.maxPositions),
    normEpsilon: config.positive("rms_norm_eps", defaults.normEpsilon),
    /** The output embedding is the input embedding. */
    isTied: config.flag("tie_word_embeddings", defaults.isTied),
    /** Standard deviation of random initial weights. */
    initializerRange: config.number("initializer_range", 0.02),
    activation: activationNamed(config.text("hidden_act", defaults.activation), config.path),
  };
}

export type ConfigReader = ReturnType<typeof configReader>;

/** The reader of an object inside a config. */
export const readerInside = (config: ConfigReader, key: string) =>
  configReader(`${config.path}: ${key}`, config.object(key));

/** A JSON object whose keys are read with their types; `path` names it in errors. */
export function configReader(path: string, json: JsonObject, aliases: Family["aliases"] = {}) {
  const asked = new Set<string>();
  /** A setting and the name under which it stands; null counts as absent, as in Hugging Face's configs. */
  const find = (key: string) => {
    const names = (Object.hasOwn(aliases, key) && aliases[key]) || [key];
    for (const name of [key, ...names]) asked.add(name);
    const name = names.find((name) => (json[name] ?? null) !== null) ?? names[0]!;
    return { name, value: json[name] ?? null };
  };
  const reading =
    <Value>(expected: string, accepts: (value: unknown) => boolean) =>
    (key: string, fallback?: Value): Value => {
      const { name, value } = find(key);
      if (value !== null && accepts(value)) return value as Value;
      if (value !== null)
        throw new UserError(`${path}: "${name}" must be ${expected}, found ${shown(value)}`);
      if (fallback !== undefined) return fallback;
      throw new UserError(`${path}: "${name}" is missing, ${expected} is needed`);
    };
  const upTo = (most: number) => (value: unknown) =>
    Number.isInteger(value) && Number(value) > 0 && Number(value) <= most;
  /** Refuses a setting that is present with another value than the supported one. */
  const only = (key: string, supported: unknown): void => {
    const { name, value } = find(key);
    if (value === null || value === supported) return;
    throw new UserError(`${path}: ${name} = ${shown(value)} is not supported`, {
      hint: `supported: ${JSON.stringify(supported)}`,
    });
  };
  return {
    path,
    has: (key: string) => find(key).value !== null,
    isNull: (key: string) => json[key] === null,
    number: reading<number>("a number", Number.isFinite),
    positive: reading<number>("a positive number", (x) => Number.isFinite(x) && Number(x) > 0),
    count: reading<number>("a positive integer", upTo(2 ** 31)),
    /** Refused before anything is made for each of them. */
    layers: reading<number>("a positive integer of at most 10000", upTo(10_000)),
    flag: reading<boolean>("true or false", (value) => typeof value === "boolean"),
    text: reading<string>("a string", (value) => typeof value === "string"),
    list: reading<readonly unknown[]>("a list", Array.isArray),
    object: reading<JsonObject>("an object", isRecord),
    only,
    /** Refuses what is set under a name that begins like this and that nothing has asked for. */
    refuseUnread: (start = "") => {
      for (const key of Object.keys(json))
        if (key.startsWith(start) && !asked.has(key)) only(key, null);
    },
  };
}
