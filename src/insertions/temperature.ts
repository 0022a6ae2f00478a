// The temperature of one projection, as graph nodes:
//   τ(x, n) = 1 + tanh(⟨w, φ(z)⟩ + b) + p(a) · ln n,   z ← τ · z
// for the projected vector z of a token at 1-based position n, before the rotary embedding. With w = b = a = 0 it is
// exactly 1. B = batch, T = sequence, N = heads of the projection, H = head dim

import { add, cast, gelu, matMul, mul, reshape, scalar, tanh } from "../graph/build.ts";
import type { Tensor } from "../graph/tensor.ts";
import { acrossHeads, type Positions, tabulate } from "../nn/positions.ts";
import type { TemperatureSpec } from "./spec.ts";

/** A part that is absent has no parameters. */
export interface TemperatureParameters {
  /** w, [N, H] */
  readonly weight?: Tensor;
  /** b, [N] */
  readonly bias?: Tensor;
  /** a, [N] */
  readonly position?: Tensor;
}

/** ln n of every token, [T, 1] or [B, 1, T, 1]. */
export function logPositions(positions: Positions): Tensor {
  return acrossHeads(tabulate(positions, 1, (position) => Math.log(position + 1)));
}

/** τ of every token and head, [B, N, T, 1] (or [N, T, 1] without a token part), in F32. */
export function temperature(
  z_BNTH: Tensor,
  { weight, bias, position }: TemperatureParameters,
  forms: Pick<TemperatureSpec, "feature" | "position">,
  logN: Tensor,
): Tensor {
  const heads = z_BNTH.shape[1]!;
  const perHead = (x: Tensor) => reshape(x, [heads, 1, 1]);
  let tau: Tensor = scalar(1);
  if (weight && bias) {
    const z = cast(z_BNTH, "F32");
    const feature_BNTH = forms.feature === "gelu" ? gelu(z, "tanh") : z;
    const projected = matMul(feature_BNTH, reshape(weight, [heads, weight.shape[1]!, 1]));
    tau = add(tau, tanh(add(projected, perHead(bias))));
  }
  if (position) {
    const strength = forms.position === "tanh" ? tanh(perHead(position)) : perHead(position);
    tau = add(tau, mul(strength, logN));
  }
  return tau;
}

/** τ · z, in z's dtype; multiplied in F32, so that the gradient of τ is. */
export function applyTemperature(z_BNTH: Tensor, tau: Tensor): Tensor {
  return cast(mul(cast(z_BNTH, "F32"), tau), z_BNTH.dtype);
}
