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

/** Of one output, before any token is seen. */
const nothingSeen = (layer: number, projection: Projection, { shape }: Tensor) => ({
  layer,
  projection,
  /** τ is [B, N, T, 1], or [N, T, 1] where it depends on the position alone, or [N, 1, 1] on nothing. */
  hasBatch: shape.length === 4,
  heads: Number(shape.at(-3)),
  tokens: Number(shape.at(-2)),
  min: Infinity,
  max: -Infinity,
  sum: 0,
  count: 0,
});

export class TemperatureStatistics {
  readonly #watched = new Map<string, ReturnType<typeof nothingSeen>>();

  /** Registers a layer's τ, once for any number of graphs, and gives the name of the output that carries it. */
  watch(layer: number, projection: Projection, tau: Tensor): string {
    const name = `tau.${layer}.${projection}`;
    if (!this.#watched.has(name)) this.#watched.set(name, nothingSeen(layer, projection, tau));
    return name;
  }

  /** Adds the first `length` tokens of one row of a run. */
  add(results: Results, row: number, length: number): void {
    for (const [name, watched] of this.#watched) {
      const { heads, tokens, hasBatch } = watched;
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
