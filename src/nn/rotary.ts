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

/** Of scalings that also lengthen what turns, by `gain`. */
interface Stretch {
  readonly originalMaxPositions: number;
  readonly gain: number;
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
    }
  /** Peng et al., 2023: the same by the number of turns in the original length, blended by the pair's index. */
  | (Stretch & {
      readonly type: "yarn";
      readonly factor: number;
      readonly fastTurns: number;
      readonly slowTurns: number;
    })
  /** Ding et al., 2024: a divisor of each frequency, others beyond the original length. */
  | (Stretch & {
      readonly type: "longrope";
      readonly short: readonly number[];
      readonly long: readonly number[];
    });

type Pair = Omit<RotaryConfig, "scaling"> & Record<"i" | "frequency" | "numPositions", number>;
type Slowed<Scaling> = (scaling: Scaling, pair: Pair) => number;

/** The frequency of pair i under each scaling. */
const slowed: {
  readonly [Type in RotaryScaling["type"]]: Slowed<Extract<RotaryScaling, { type: Type }>>;
} = {
  none: (_, { frequency }) => frequency,
  linear: ({ factor }, { frequency }) => frequency / factor,
  llama3: (scaling, { frequency }) => {
    const { factor, lowFrequencyFactor: low, highFrequencyFactor: high } = scaling;
    const turns = (scaling.originalMaxPositions * frequency) / (2 * Math.PI);
    const kept = Math.min(1, Math.max(0, (turns - low) / (high - low)));
    return kept * frequency + ((1 - kept) * frequency) / factor;
  },
  yarn: (scaling, { rotaryDim, theta, i, frequency }) => {
    const { factor, originalMaxPositions } = scaling;
    /** The index at which a pair makes so many turns. */
    const indexAt = (turns: number) =>
      (rotaryDim * Math.log(originalMaxPositions / (turns * 2 * Math.PI))) / (2 * Math.log(theta));
    const first = Math.max(Math.floor(indexAt(scaling.fastTurns)), 0);
    const last = Math.min(Math.ceil(indexAt(scaling.slowTurns)), rotaryDim - 1);
    const width = last === first ? 0.001 : last - first;
    const share = Math.min(1, Math.max(0, (i - first) / width));
    return (frequency / factor) * share + frequency * (1 - share);
  },
  longrope: ({ short, long, originalMaxPositions }, { i, frequency, numPositions }) =>
    frequency / (numPositions > originalMaxPositions ? long : short)[i]!,
};

/** Angle per position of each of the rotaryDim / 2 pairs, in windows of so many tokens. */
export function frequencies(config: RotaryConfig, numPositions = 1): number[] {
  const { rotaryDim, theta, scaling } = config;
  const slow = slowed[scaling.type] as Slowed<RotaryScaling>;
  return Array.from({ length: rotaryDim / 2 }, (_, i) => {
    const frequency = theta ** ((-2 * i) / rotaryDim);
    return slow(scaling, { rotaryDim, theta, i, frequency, numPositions });
  });
}

/** The longest sequence whose tokens turn as those of any shorter one. */
export const steadyLength = ({ scaling }: RotaryConfig) =>
  scaling.type === "longrope" ? scaling.originalMaxPositions : Infinity;

/** The rotation of queries and keys [B, N, T, H] at the given positions. */
export function rotation(config: RotaryConfig, positions: Positions): (x_BNTH: Tensor) => Tensor {
  const { scaling } = config;
  const angles = frequencies(config, positions.numPositions);
  const gain = "gain" in scaling ? scaling.gain : 1;
  const table = (f: (angle: number) => number) =>
    acrossHeads(tabulate(positions, angles.length, (n, i) => gain * f(n * angles[i]!)));
  const [cos, sin] = [table(Math.cos), table(Math.sin)];
  return (x_BNTH) => rotary(x_BNTH, cast(cos, x_BNTH.dtype), cast(sin, x_BNTH.dtype));
}
