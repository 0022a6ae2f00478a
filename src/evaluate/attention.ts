// What attention does on real text, seen through outputs of the graph that scores it: τ by layer, head and token, and the
// entropy of its rows.

import type { Shape } from "../core/shape.ts";
import type { Window } from "../data/windows.ts";
import type { Results } from "../engines/index.ts";
import { logSumExp, mul, reduceSum, sub } from "../graph/build.ts";
import type { Tensor } from "../graph/tensor.ts";
import type { Observer } from "../insertions/insertion.ts";
import type { AttentionHooks, Projection } from "../nn/attention.ts";

interface Site {
  readonly layer: number;
  readonly projection: Projection;
}

/** What a layer's τ of one projection does, over all heads and tokens seen. */
export interface TemperatureSummary extends Site {
  readonly min: number;
  readonly mean: number;
  readonly max: number;
}

/** The same of each head: the mean, and the standard deviation over tokens. */
export interface HeadTemperatures extends Site {
  readonly mean: readonly number[];
  readonly deviation: readonly number[];
}

/** τ of the first tokens of a window, by head. */
export interface TokenTemperatures extends Site {
  readonly taus: readonly (readonly number[])[];
}

interface Wishes {
  /** Keeps τ of so many tokens, the first of the first window. */
  readonly tokens?: number;
  /** Adds up the entropy of rows, which takes some time. */
  readonly entropy?: boolean;
}

/** Collects what one forward pass after another shows. */
export class AttentionStatistics {
  readonly #watched = new Map<string, ReturnType<typeof nothingSeen>>();
  readonly #entropies = new Map<
    string,
    { layer: number; shape: Shape; sum: number; rows: number }
  >();
  readonly #wishes: Wishes;
  /** Of which `tokenTemperatures` are. */
  firstWindow: Window | undefined;

  constructor(wishes: Wishes = {}) {
    this.#wishes = wishes;
  }

  /** What a graph is built with, so that its outputs have what is watched; it is the one that runs next. */
  watch(outputs: Record<string, Tensor>): { observe: Observer; hooks?: AttentionHooks } {
    const observe: Observer = (layer, projection, tau) => {
      const name = `tau.${layer}.${projection}`;
      const seen = this.#watched.get(name) ?? nothingSeen(layer, projection);
      this.#watched.set(name, { ...seen, shape: tau.shape });
      outputs[name] = tau;
    };
    if (!this.#wishes.entropy) return { observe };
    let blocks = 0;
    const attended: AttentionHooks["attended"] = (layer, logits, weights) => {
      // -Σ w ln w, where ln w = logit - ln Σ exp(logits); a masked logit is finite and its weight 0. [B, N, rows, 1]
      const entropy = sub(logSumExp(logits), reduceSum(mul(weights, logits), [-1]));
      const name = `entropy.${layer}.${blocks++}`;
      this.#entropies.set(name, { layer, shape: entropy.shape, sum: 0, rows: 0 });
      outputs[name] = entropy;
    };
    return { observe, hooks: { attended } };
  }

  /** Adds the first `length` tokens of one row of a run, which begins with a window. */
  add(results: Results, row: number, length: number, window: Window): void {
    const isFirst = this.firstWindow === undefined;
    this.firstWindow ??= window;
    for (const [name, watched] of this.#watched) {
      // τ is [B, N, T, 1], or [N, T, 1] where it depends on the position alone, or [N, 1, 1] on nothing.
      const { shape } = watched;
      const [heads, tokens] = shape.slice(-3, -1).map(Number) as [number, number];
      const first = shape.length === 4 ? row * heads : 0;
      for (let head = 0; head < heads; head++) {
        const start = (first + head) * tokens;
        const own = (watched.heads[head] ??= { count: 0, sum: 0, squares: 0 });
        const taus = results[name]!.subarray(start, start + Math.min(length, tokens));
        for (const tau of taus) {
          watched.min = Math.min(watched.min, tau);
          watched.max = Math.max(watched.max, tau);
          watched.sum += tau;
          watched.count += 1;
          own.count += 1;
          own.sum += tau;
          own.squares += (tau - 1) ** 2; // from 1, near which they are, so that little is lost
        }
        const kept = Math.min(this.#wishes.tokens ?? 0, window.length, length);
        if (isFirst) watched.taus.push(Array.from({ length: kept }, (_, i) => taus[i] ?? taus[0]!));
      }
    }
    // Blocks of rows follow one another, each [B, N, rows, 1].
    const ends = new Map<number, number>();
    for (const [name, of] of this.#entropies) {
      const [, heads, rows] = of.shape.map(Number) as [number, number, number];
      const start = ends.get(of.layer) ?? 0;
      ends.set(of.layer, start + rows);
      const numRows = Math.max(0, Math.min(rows, length - start));
      for (let head = 0; head < heads; head++) {
        const at = (row * heads + head) * rows;
        for (const entropy of results[name]!.subarray(at, at + numRows)) of.sum += entropy;
        of.rows += numRows;
      }
    }
  }

  summary(): TemperatureSummary[] {
    return this.#seen().map(({ layer, projection, min, max, sum, count }) => {
      return { layer, projection, min, mean: sum / count, max };
    });
  }

  byHead(): HeadTemperatures[] {
    return this.#seen().map(({ layer, projection, heads }) => {
      const mean = heads.map(({ sum, count }) => sum / count);
      const deviation = heads.map(({ squares, count }, head) =>
        Math.sqrt(Math.max(0, squares / count - (mean[head]! - 1) ** 2)),
      );
      return { layer, projection, mean, deviation };
    });
  }

  byToken(): TokenTemperatures[] {
    return this.#seen().map(({ layer, projection, taus }) => ({ layer, projection, taus }));
  }

  /** Mean entropy of each layer's rows, over heads and tokens, in nats: exp of it is how many tokens a row spreads over. */
  entropies(): number[] {
    const layers = new Map<number, { sum: number; rows: number }>();
    for (const { layer, sum, rows } of this.#entropies.values()) {
      const of = layers.get(layer) ?? { sum: 0, rows: 0 };
      layers.set(layer, { sum: of.sum + sum, rows: of.rows + rows });
    }
    return [...layers.values()].map(({ sum, rows }) => sum / rows);
  }

  #seen = () => [...this.#watched.values()].filter(({ count }) => count > 0);
}

function nothingSeen(layer: number, projection: Projection) {
  const shape: Shape = [];
  const heads: { count: number; sum: number; squares: number }[] = [];
  const taus: number[][] = [];
  return { layer, projection, shape, heads, taus, min: Infinity, max: -Infinity, sum: 0, count: 0 };
}
