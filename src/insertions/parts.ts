// What temperatures are made of, one row each, and which of it is inserted (Zhang et al., NeurIPS 2024; for what scales
// logits alone docs/temperatures.md has the sources). The projected vector z of a token at 1-based position n, whose
// query sees m keys, is scaled before the rotary embedding, with parameters of its head:
//   τ(x, n) = (1 + tanh(⟨w, φ(z)⟩ + b) + p(a) · ln n + tanh(c)) · (s ln m) · (s ln m + b) · ln m / ln M · (0.1 ln S + 1)²
// with the terms and factors that are on. B = batch, T = sequence, N = heads of the projection, H = head dim, D = hidden

import { UserError } from "../core/errors.ts";
import { isRecord, shown } from "../core/json.ts";
import type { Random } from "../core/random.ts";
import { add, exp, gelu, matMul, mul, neg, sigmoid, tanh } from "../graph/build.ts";
import type { Tensor } from "../graph/tensor.ts";
import { type Projection, PROJECTIONS } from "../nn/attention.ts";

type Form = (x: Tensor) => Tensor;

/** Choices that all projections share, the default first. */
export const temperatureForms = {
  /** φ of the token part. */
  feature: { gelu: (z) => gelu(z, "tanh"), linear: (z) => z, tanh } satisfies Record<string, Form>,
  /** p of the position part and what a starts from: ours, the paper's 1 + σ(α) ln n, its code's 1 + exp(-exp β) ln n. */
  position: {
    tanh: [tanh, 0],
    linear: [(a) => a, 0],
    sigmoid: [sigmoid, 0],
    "exp-exp": [(a) => exp(neg(exp(a))), 1.5],
  } satisfies Record<string, readonly [Form, number]>,
  /** What φ is of: the projection (the paper's weight sharing), or a layer of the token part's own. */
  hidden: { shared: null, own: null },
  /** What shares one set of parameters. */
  tie: { none: "", heads: "heads", layers: "layers", all: "heads, layers" },
} as const;

type Forms = typeof temperatureForms;
export type TemperatureForms = { readonly [Name in keyof Forms]: keyof Forms[Name] };

const keysOf = <Key extends string>(table: Record<Key, unknown>) => Object.keys(table) as Key[];
const FORMS = keysOf(temperatureForms);
export const formsOf = <Name extends keyof Forms>(name: Name) =>
  keysOf<keyof Forms[Name] & string>(temperatureForms[name]);

/** The forms, and the number that stands in place of true. */
type Asked = Readonly<{ forms: TemperatureForms; setting: number }>;
interface TermContext extends Asked {
  /** F32 [B, N, T, H] */
  readonly z: Tensor;
  /** What the projections are made of, F32 [B, 1, T, D]. */
  readonly input: Tensor;
  /** ln n of every token, and ln m, [T, 1] or [B, 1, T, 1]. */
  readonly logN: Tensor;
  readonly logKeys: Tensor;
  /** A number for every head, [N, 1, 1]. */
  readonly perHead: (value: number) => Tensor;
}

type Sizes = Readonly<Record<"heads" | "headDim" | "hiddenSize", number>>;
/** What a parameter starts from is 0 if nothing is said. */
type PartParameter = readonly [shape: readonly number[], initial?: (random: Random) => number];

interface Part {
  /** By the last word of the name, `<attention prefix>.ssa.<projection>.<word>`. */
  readonly parameters: (sizes: Sizes, asked: Asked) => Readonly<Record<string, PartParameter>>;
  /** Of τ; broadcast to [B, N, T, 1] from parameters of [N, H, 1] or [N, 1, 1]. */
  readonly term: (parameter: (word: string) => Tensor, context: TermContext) => Tensor;
  /** The term of a head where it is the same for all tokens, so that it can be folded into the projection. */
  readonly constant?: (parameter: (word: string) => number, setting: number) => number;
  /** The first format_version of ssa_config.json that knows it. */
  readonly version: 1 | 2 | 3;
  /** Multiplies the sum, and is of logits: on the query alone. */
  readonly isFactor?: true;
  /** A number above this stands in place of true, and the model is not the base before it is trained. */
  readonly setting?: readonly [above: number, meaning: string];
}

const ofLogits = { version: 3, isFactor: true } as const;
const yarn = (scale: number) => (0.1 * Math.log(scale) + 1) ** 2;

const temperatureParts = {
  token: {
    parameters: ({ heads, headDim, hiddenSize }, { forms }) => {
      // As PyTorch starts a linear layer.
      const initial = (random: Random) => (2 * random.uniform() - 1) * hiddenSize ** -0.5;
      const hidden: PartParameter = [[heads, hiddenSize, headDim], initial];
      const own = forms.hidden === "own" && { hidden };
      return { ...own, weight: [[heads, headDim]], bias: [[heads]] };
    },
    term: (parameter, { z, input, forms }) => {
      const x = forms.hidden === "own" ? matMul(input, parameter("hidden")) : z;
      const feature = temperatureForms.feature[forms.feature](x);
      return tanh(add(matMul(feature, parameter("weight")), parameter("bias")));
    },
    version: 1,
  },
  position: {
    parameters: ({ heads }, { forms: { position } }) => {
      return { position: [[heads], () => temperatureForms.position[position][1]] };
    },
    term: (parameter, { logN, forms: { position } }) =>
      mul(temperatureForms.position[position][0](parameter("position")), logN),
    version: 1,
  },
  constant: {
    parameters: ({ heads }) => ({ constant: [[heads]] }),
    term: (parameter) => tanh(parameter("constant")),
    constant: (parameter) => Math.tanh(parameter("constant")),
    version: 2,
  },
  // Scalable-Softmax (Nakanishi, 2025), and with its bias, from s = 0 and b = 1, which is the base.
  ssmax: {
    ...ofLogits,
    parameters: ({ heads }, { setting }) => ({ ssmax: [[heads], () => setting] }),
    term: (parameter, { logKeys }) => mul(parameter("ssmax"), logKeys),
    setting: [0, "what s starts from"],
  },
  ssmaxBias: {
    ...ofLogits,
    parameters: ({ heads }) => ({ ssmax_scale: [[heads]], ssmax_bias: [[heads], () => 1] }),
    term: (parameter, { logKeys }) =>
      add(mul(parameter("ssmax_scale"), logKeys), parameter("ssmax_bias")),
  },
  // Su, 2021: M is what the base was trained with.
  logn: {
    ...ofLogits,
    parameters: () => ({}),
    term: (_, { logKeys, setting, perHead }) => mul(perHead(1 / Math.log(setting)), logKeys),
    setting: [1, "the tokens of a sequence in the base's training"],
  },
  // YaRN's attention factor (Peng et al., 2023): its square, of the query, in place of once of query and key each.
  yarn: {
    ...ofLogits,
    parameters: () => ({}),
    term: (_, { setting, perHead }) => perHead(yarn(setting)),
    constant: (_, setting) => yarn(setting),
    setting: [1, "how many times as long the context is"],
  },
} as const satisfies Record<string, Part>;

type TemperaturePart = keyof typeof temperatureParts;
export const PARTS = keysOf(temperatureParts);

/** A row, as any row is. */
export const partOf = (name: TemperaturePart): Part => temperatureParts[name];

/** Which parts a projection has; a number where one has a setting. */
type PartChoice = Readonly<Record<TemperaturePart, boolean | number>>;

/** Which temperatures are inserted, as stated in recipes and in ssa_config.json. */
export interface TemperatureSpec
  extends TemperatureForms, Readonly<Record<Projection, PartChoice>> {}

/** These parts and no others. */
export const onlyParts = (...on: readonly TemperaturePart[]) =>
  Object.fromEntries(PARTS.map((part) => [part, on.includes(part)])) as PartChoice;

export const DEFAULT_TEMPERATURES: TemperatureSpec = {
  feature: "gelu",
  position: "tanh",
  hidden: "shared",
  tie: "none",
  query: onlyParts("token", "position"),
  key: onlyParts(),
  value: onlyParts("token"),
};

export const partsOf = (spec: TemperatureSpec, projection: Projection) =>
  PARTS.filter((part) => spec[projection][part] !== false);

/** What may be stated of a part on a projection, in words. */
export function choiceOf(part: TemperaturePart, projection: Projection) {
  const { setting: [above, meaning] = [], isFactor } = partOf(part);
  const isHere = !isFactor || projection === "query";
  const on = above === undefined ? "true or false" : `false or a number above ${above}, ${meaning}`;
  const expected = isHere ? on : "false: it is of logits, on the query alone";
  const isOn = (value: unknown) =>
    above === undefined ? value === true : Number.isFinite(value) && Number(value) > above;
  const accepts = (value: unknown) => value === false || (isHere && isOn(value));
  return { expected, accepts };
}

/** Parts that change a model before they are trained: slopes that are never 0, and those with a number. */
export const changesOf = (spec: TemperatureSpec) =>
  PARTS.filter((part) => {
    const isOn = PROJECTIONS.some((projection) => spec[projection][part] !== false);
    const isSlope = part === "position" && ["sigmoid", "exp-exp"].includes(spec.position);
    return isOn && (isSlope || partOf(part).setting);
  });

const partsBy = (version: number) => PARTS.filter((part) => partOf(part).version <= version);
const formsBy = (version: number) => FORMS.filter((_, i) => version > 2 || i < 2);

/** In the oldest version that can say it; without an adapter's `base_*` fields. */
export function specToJson(spec: TemperatureSpec): Readonly<Record<string, unknown>> {
  const used = PROJECTIONS.flatMap((projection) => partsOf(spec, projection));
  const isUsual = spec.hidden === "shared" && spec.tie === "none";
  const version = Math.max(isUsual ? 1 : 3, ...used.map((part) => partOf(part).version));
  const projections = PROJECTIONS.map((projection) => {
    const choice = partsBy(version).map((part) => [part, spec[projection][part]]);
    return [projection, Object.fromEntries(choice)];
  });
  const forms = formsBy(version).map((name) => [name, spec[name]]);
  return { format_version: version, ...Object.fromEntries([...forms, ...projections]) };
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
  const version = choice("format_version", [1, 2, 3]);
  const known = partsBy(version);
  const parts = (key: Projection) => {
    const found = isRecord(record[key]) ? record[key] : {};
    if (known.every((part) => choiceOf(part, key).accepts(found[part])))
      return [key, { ...onlyParts(), ...Object.fromEntries(known.map((p) => [p, found[p]])) }];
    throw wrong(key, `{${known.map((p) => `"${p}": ${choiceOf(p, key).expected}`).join(", ")}}`);
  };
  const forms = formsBy(version).map((name) => [name, choice<string>(name, formsOf(name))]);
  return {
    ...DEFAULT_TEMPERATURES,
    ...Object.fromEntries([...forms, ...PROJECTIONS.map(parts)]),
  } as TemperatureSpec;
}
