// Layers that the architectures share, as functions over symbolic tensors.
// B = batch, T = sequence, D = features in, F = features out

import { UserError } from "../core/errors.ts";
import * as g from "../graph/build.ts";
import type { Tensor } from "../graph/tensor.ts";

/** x_BTD · W (+ b). PyTorch's Linear keeps W as [F, D], GPT-2's Conv1D as [D, F]. */
export function linear(x_BTD: Tensor, weight: Tensor, bias?: Tensor, layout: "FD" | "DF" = "FD") {
  const product_BTF = g.matMul(x_BTD, weight, { transposeB: layout === "FD" });
  return bias ? g.add(product_BTF, bias) : product_BTF;
}

/** Norms over the last axis, computed in F32, in the format of x. */
export const layerNorm = (x: Tensor, weight: Tensor, bias: Tensor, epsilon: number) =>
  g.cast(g.layerNorm(g.cast(x, "F32"), weight, bias, epsilon), x.dtype);
export const rmsNorm = (x: Tensor, weight: Tensor, epsilon: number) =>
  g.cast(g.rmsNorm(g.cast(x, "F32"), weight, epsilon), x.dtype);

/** c · tanh(x / c); null: x. */
export const softCap = (x: Tensor, cap: number | null) =>
  cap === null ? x : g.scale(g.tanh(g.scale(x, 1 / cap)), cap);

const silu = (x: Tensor) => g.mul(x, g.sigmoid(x));

const relu = (x: Tensor) => {
  const zero = g.cast(g.scalar(0), x.dtype);
  return g.where(g.lessOrEqual(x, zero), zero, x);
};

const activations = {
  gelu: (x: Tensor) => g.gelu(x, "none"),
  gelu_new: (x: Tensor) => g.gelu(x, "tanh"),
  gelu_fast: (x: Tensor) => g.gelu(x, "tanh"),
  gelu_pytorch_tanh: (x: Tensor) => g.gelu(x, "tanh"),
  silu,
  swish: silu,
  relu,
} as const;

/** An activation by its Hugging Face name. */
export type Activation = keyof typeof activations;

export const activate = (x: Tensor, activation: Activation) => activations[activation](x);

/** Checks a config's activation; another name is a UserError that lists the known ones. */
export function activationNamed(name: string, where: string): Activation {
  if (Object.hasOwn(activations, name)) return name as Activation;
  throw new UserError(`${where}: activation "${name}" is not supported`, {
    hint: `supported: ${Object.keys(activations).join(", ")}`,
  });
}
