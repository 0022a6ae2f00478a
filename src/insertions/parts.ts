// What temperatures are made of, one row each, and which of it is inserted (Zhang et al., NeurIPS 2024). The projected
// vector z of a token at 1-based position n is scaled before the rotary embedding, with parameters of its head:
//   τ(x, n) = 1 + tanh(⟨w, φ(z)⟩ + b) + p(a) · ln n + tanh(c),   z ← τ · z
// Every term is 0 where its parameters are. B = batch, T = sequence, N = heads of the projection, H = head dim

import { UserError } from "../core/errors.ts";
import { isRecord, shown } from "../core/json.ts";
import { add, gelu, matMul, mul, tanh } from "../graph/build.ts";
import type { Tensor } from "../graph/tensor.ts";
import { type Projection, PROJECTIONS } from "../nn/attention.ts";

/** Choices that all projections share: φ of the token part, p of the position part. */
export const temperatureForms = {
  feature: { gelu: (z: Tensor) => gelu(z, "tanh"), linear: (z: Tensor) => z },
  position: { tanh, linear: (a: Tensor) => a },
} as const satisfies Record<string, Record<string, (x: Tensor) => Tensor>>;

type TemperatureForms = {
  readonly [Form in keyof typeof temperatureForms]: keyof (typeof temperatureForms)[Form];
};

const keysOf = <Key extends string>(table: Record<Key, unknown>) => Object.keys(table) as Key[];
export const FEATURES = keysOf(temperatureForms.feature);
export const POSITION_FORMS = keysOf(temperatureForms.position);

interface TermContext extends Readonly<Record<keyof TemperatureForms, (x: Tensor) => Tensor>> {
  /** F32 [B, N, T, H] */
  readonly z: Tensor;
  /** ln n of every token, [T, 1] or [B, 1, T, 1]. */
  readonly logN: Tensor;
}

interface Part {
  /** Shapes by the last word of the name, `<attention prefix>.ssa.<projection>.<word>`. */
  readonly parameters: (heads: number, headDim: number) => Readonly<Record<string, number[]>>;
  /** Of τ; broadcast to [B, N, T, 1] from parameters of [N, H, 1] or [N, 1, 1]. */
  readonly term: (parameter: (word: string) => Tensor, context: TermContext) => Tensor;
  /** The term of a head where it is the same for all tokens, so that it can be folded into the projection. */
  readonly constant: ((parameter: (word: string) => number) => number) | null;
  /** The first format_version of ssa_config.json that knows it. */
  readonly version: 1 | 2;
}

const temperatureParts = {
  token: {
    parameters: (heads, headDim) => ({ weight: [heads, headDim], bias: [heads] }),
    term: (parameter, { z, feature }) =>
      tanh(add(matMul(feature(z), parameter("weight")), parameter("bias"))),
    constant: null,
    version: 1,
  },
  position: {
    parameters: (heads) => ({ position: [heads] }),
    term: (parameter, { logN, position }) => mul(position(parameter("position")), logN),
    constant: null,
    version: 1,
  },
  constant: {
    parameters: (heads) => ({ constant: [heads] }),
    term: (parameter) => tanh(parameter("constant")),
    constant: (parameter) => Math.tanh(parameter("constant")),
    version: 2,
  },
} as const satisfies Record<string, Part>;

type TemperaturePart = keyof typeof temperatureParts;
export const PARTS = keysOf(temperatureParts);

/** A row, as any row is. */
export const partOf = (name: TemperaturePart): Part => temperatureParts[name];

/** Which parts a projection has. */
type PartChoice = Readonly<Record<TemperaturePart, boolean>>;

/** Which temperatures are inserted, as stated in recipes and in ssa_config.json. */
export interface TemperatureSpec
  extends TemperatureForms, Readonly<Record<Projection, PartChoice>> {}

/** These parts and no others. */
export const onlyParts = (...on: readonly TemperaturePart[]) =>
  Object.fromEntries(PARTS.map((part) => [part, on.includes(part)])) as PartChoice;

export const DEFAULT_TEMPERATURES: TemperatureSpec = {
  feature: "gelu",
  position: "tanh",
  query: onlyParts("token", "position"),
  key: onlyParts(),
  value: onlyParts("token"),
};

export const partsOf = (spec: TemperatureSpec, projection: Projection) =>
  PARTS.filter((part) => spec[projection][part]);

const partsBy = (version: number) => PARTS.filter((part) => partOf(part).version <= version);

/** In the oldest version that can say it; without an adapter's `base_*` fields. */
export function specToJson(spec: TemperatureSpec): Readonly<Record<string, unknown>> {
  const used = PROJECTIONS.flatMap((projection) => partsOf(spec, projection));
  const version = Math.max(1, ...used.map((part) => partOf(part).version));
  const projections = PROJECTIONS.map((projection) => {
    const choice = partsBy(version).map((part) => [part, spec[projection][part]]);
    return [projection, Object.fromEntries(choice)];
  });
  const { feature, position } = spec;
  return { format_version: version, feature, position, ...Object.fromEntries(projections) };
}

/** Reads ssa_config.json, whose path is for messages; every field is required and checked. */
export function specFromJson(path: string, json: unknown): TemperatureSpec {
  const record = isRecord(json) ? json : {};
  const wrong = (key: string, expected: string) =>
    new UserError(`${path}: "${key}" must be ${expected}, found ${shown(record[key])}`);
  const choice = <Value>(key: string, allowed: readonly Value[]): Value => {
    const found = allowed.find((value) => value === record[key]);
    if (found === undefined) throw wrong(key, allowed.join(" or "));
    return found;
  };
  const known = partsBy(choice("format_version", [1, 2]));
  const parts = (key: Projection): PartChoice => {
    const found = isRecord(record[key]) ? record[key] : {};
    if (known.every((part) => typeof found[part] === "boolean"))
      return onlyParts(...known.filter((part) => found[part]));
    throw wrong(key, `{${known.map((part) => `"${part}": true|false`).join(", ")}}`);
  };
  return {
    feature: choice("feature", FEATURES),
    position: choice("position", POSITION_FORMS),
    query: parts("query"),
    key: parts("key"),
    value: parts("value"),
  };
}
