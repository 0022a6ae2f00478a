// What learned temperatures do on real text: the least, mean and greatest τ of each layer and projection.

import type { Tensor } from "../graph/tensor.ts";
import type { Results } from "../engines/index.ts";
import type { Projection } from "../nn/attention.ts";

/** τ over all heads and tokens seen. */
export interface TemperatureSummary {
  readonly layer: number;
  readonly projection: Projection;
  readonly min: number;
  readonly mean: number;
  readonly max: number;
}

interface Watched {
  readonly layer: number;
  readonly projection: Projection;
  /** τ is [B, N, T, 1], or [N, T, 1] where it depends on the position alone, or [N, 1, 1] on nothing. */
  readonly hasBatch: boolean;
  readonly heads: number;
  readonly tokens: number;
  min: number;
  max: number;
  sum: number;
  count: number;
}

export class TemperatureStatistics {
  readonly #watched = new Map<string, Watched>();

  /** Registers a layer's τ and gives the name of the output that carries it. */
  watch(layer: number, projection: Projection, { shape }: Tensor): string {
    const name = `tau.${layer}.${projection}`;
    const [min, max] = [Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY];
    const hasBatch = shape.length === 4;
    const [heads, tokens] = shape.slice(-3).map(Number) as [number, number];
    const seen = { min, max, sum: 0, count: 0 };
    this.#watched.set(name, { layer, projection, hasBatch, heads, tokens, ...seen });
    return name;
  }

  /** Adds the first `length` tokens of one row of a run. */
  add(results: Results, row: number, length: number): void {
    for (const [name, watched] of this.#watched) {
      const { heads, hasBatch, tokens } = watched;
      for (let head = 0; head < heads; head++) {
        const start = ((hasBatch ? row * heads : 0) + head) * tokens;
        for (const tau of results[name]!.subarray(start, start + Math.min(length, tokens))) {
          watched.min = Math.min(watched.min, tau);
          watched.max = Math.max(watched.max, tau);
          watched.sum += tau;
          watched.count += 1;
        }
      }
    }
  }

  summary(): TemperatureSummary[] {
    return [...this.#watched.values()]
      .filter(({ count }) => count > 0)
      .map(({ layer, projection, min, max, sum, count }) => {
        return { layer, projection, min, mean: sum / count, max };
      });
  }
}
