// Rotary position embedding (Su et al., 2021) in Hugging Face's layout: a head's first half is rotated against its
// second. NeoX rotates only the first `rotaryDim` elements of each head.

import { cast, rotary } from "../graph/build.ts";
import type { Tensor } from "../graph/tensor.ts";
import { acrossHeads, type Positions, tabulate } from "./positions.ts";

export interface RotaryConfig {
  /** Elements of each head that rotate; even. */
  readonly rotaryDim: number;
  readonly theta: number;
  readonly scaling: RotaryScaling;
}

export type RotaryScaling =
  | { readonly type: "none" }
  /** All frequencies divided by a factor. */
  | { readonly type: "linear"; readonly factor: number }
  /** Llama 3.1: long wavelengths divided by the factor, short ones kept, blended between. */
  | {
      readonly type: "llama3";
      readonly factor: number;
      readonly lowFrequencyFactor: number;
      readonly highFrequencyFactor: number;
      readonly originalMaxPositions: number;
    };

/** Angle per position of each of the rotaryDim / 2 pairs. */
export function frequencies({ rotaryDim, theta, scaling }: RotaryConfig): number[] {
  return Array.from({ length: rotaryDim / 2 }, (_, i) => {
    const frequency = theta ** ((-2 * i) / rotaryDim);
    if (scaling.type === "none") return frequency;
    if (scaling.type === "linear") return frequency / scaling.factor;
    const { factor, lowFrequencyFactor: low, highFrequencyFactor: high } = scaling;
    const turns = (scaling.originalMaxPositions * frequency) / (2 * Math.PI);
    const kept = Math.min(1, Math.max(0, (turns - low) / (high - low)));
    return kept * frequency + ((1 - kept) * frequency) / factor;
  });
}

/** The rotation of queries and keys [B, N, T, H] at the given positions. */
export function rotation(config: RotaryConfig, positions: Positions): (x_BNTH: Tensor) => Tensor {
  const angles = frequencies(config);
  const table = (f: (angle: number) => number) =>
    acrossHeads(tabulate(positions, angles.length, (n, i) => f(n * angles[i]!)));
  const [cos, sin] = [table(Math.cos), table(Math.sin)];
  return (x_BNTH) => rotary(x_BNTH, cast(cos, x_BNTH.dtype), cast(sin, x_BNTH.dtype));
}
