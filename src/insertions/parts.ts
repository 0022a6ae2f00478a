// What temperatures are made of, one row each (Zhang et al., NeurIPS 2024). The projected vector z of a token at
// 1-based position n is scaled before the rotary embedding, with parameters of its head:
//   τ(x, n) = 1 + tanh(⟨w, φ(z)⟩ + b) + p(a) · ln n + tanh(c),   z ← τ · z
// Every term is 0 where its parameters are. B = batch, T = sequence, N = heads of the projection, H = head dim

import { add, gelu, matMul, mul, tanh } from "../graph/build.ts";
import type { Tensor } from "../graph/tensor.ts";

/** Choices that all projections share: φ of the token part, p of the position part. */
export const temperatureForms = {
  feature: { gelu: (z: Tensor) => gelu(z, "tanh"), linear: (z: Tensor) => z },
  position: { tanh, linear: (a: Tensor) => a },
} as const satisfies Record<string, Record<string, (x: Tensor) => Tensor>>;

export type TemperatureForms = {
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
  readonly parameters: (
    heads: number,
    headDim: number,
  ) => Readonly<Record<string, readonly number[]>>;
  readonly initial: number;
  /** Of τ; broadcast to [B, N, T, 1] from parameters of [N, H, 1] or [N, 1, 1]. */
  readonly term: (parameter: (word: string) => Tensor, context: TermContext) => Tensor;
  /** The term of a head where it is the same for all tokens, so that it can be folded into the projection. */
  readonly constant: ((parameter: (word: string) => number) => number) | null;
  /** The first format_version of ssa_config.json that knows it. */
  readonly version: 1 | 2;
}

export const temperatureParts = {
  token: {
    parameters: (heads, headDim) => ({ weight: [heads, headDim], bias: [heads] }),
    initial: 0,
    term: (parameter, { z, feature }) =>
      tanh(add(matMul(feature(z), parameter("weight")), parameter("bias"))),
    constant: null,
    version: 1,
  },
  position: {
    parameters: (heads) => ({ position: [heads] }),
    initial: 0,
    term: (parameter, { logN, position }) => mul(position(parameter("position")), logN),
    constant: null,
    version: 1,
  },
  constant: {
    parameters: (heads) => ({ constant: [heads] }),
    initial: 0,
    term: (parameter) => tanh(parameter("constant")),
    constant: (parameter) => Math.tanh(parameter("constant")),
    version: 2,
  },
} as const satisfies Record<string, Part>;

export type TemperaturePart = keyof typeof temperatureParts;
export const PARTS = keysOf(temperatureParts);

/** A row, as any row is. */
export const partOf = (name: TemperaturePart): Part => temperatureParts[name];
