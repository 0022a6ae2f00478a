// Layers that the architectures share, as functions over symbolic tensors.
// B = batch, T = sequence, D = features in, F = features out

import { UserError } from "../core/errors.ts";
import { add, gelu, matMul, mul, sigmoid } from "../graph/build.ts";
import type { Tensor } from "../graph/tensor.ts";

/** x_BTD · W (+ b). PyTorch's Linear keeps W as [F, D], GPT-2's Conv1D as [D, F]. */
export function linear(
  x_BTD: Tensor,
  weight: Tensor,
  bias?: Tensor,
  layout: "FD" | "DF" = "FD",
): Tensor {
  const product_BTF = matMul(x_BTD, weight, { transposeB: layout === "FD" });
  return bias ? add(product_BTF, bias) : product_BTF;
}

const activations = {
  gelu: (x: Tensor) => gelu(x, "none"),
  gelu_new: (x: Tensor) => gelu(x, "tanh"),
  gelu_fast: (x: Tensor) => gelu(x, "tanh"),
  gelu_pytorch_tanh: (x: Tensor) => gelu(x, "tanh"),
  silu: (x: Tensor) => mul(x, sigmoid(x)),
} as const;

/** An activation by its Hugging Face name. */
export type Activation = keyof typeof activations;

export function activate(x: Tensor, activation: Activation): Tensor {
  return activations[activation](x);
}

/** Checks a config's activation; another name is a UserError that lists the known ones. */
export function activationNamed(name: string): Activation {
  if (Object.hasOwn(activations, name)) return name as Activation;
  throw new UserError(`activation "${name}" is not supported`, {
    hint: `supported: ${Object.keys(activations).join(", ")}`,
  });
}
