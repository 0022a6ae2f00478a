// What attention does on real text, seen through outputs of the graph that scores it: τ by layer, head and token, and the
// entropy of its rows.

import type { Shape } from "../core/shape.ts";
import type { Window } from "../data/windows.ts";
import type { Results } from "../engines/index.ts";
import { logSumExp, mul, reduceMean, reduceSum, sub } from "../graph/build.ts";
import type { Tensor } from "../graph/tensor.ts";
import type { Observer } from "../insertions/insertion.ts";
import type { AttentionHooks, Projection } from "../nn/attention.ts";

/** Where there may be a temperature. */
export type Site = Readonly<{ layer: number; projection: Projection }>;

/** What a layer's τ of one projection does, over all heads and tokens seen. */
export type TemperatureSummary = Site & Readonly<Record<"min" | "mean" | "max", number>>;

/** Tokens of whose attention all weights are kept, a block of rows at most. */
const MOST_SHOWN = 128;

/** Collects what one forward pass after another shows; of the first `tokens` tokens of the first window each τ. */
export class AttentionStatistics {
  readonly #sites = new Map<string, Site & { readonly shape: Shape; readonly heads: Seen[] }>();
  readonly #rows = new Map<string, { layer: number; start: number; shape: Shape }>();
  readonly #entropies: Seen[] = [];
  readonly #weights = new Map<string, number>();
  /** By layer, how the first window's first tokens attend, mean over heads: of each what it can see, [T (T + 1) / 2]. */
  readonly attention: number[][] = [];
  readonly #tokens: number;
  /** Whose first tokens heads keep. */
  firstWindow: Window | undefined;

  constructor(tokens = 0) {
    this.#tokens = tokens;
  }

  /** What a graph is built with, so that its outputs have what is watched; it is the one that runs next. */
  watch(outputs: Record<string, Tensor>, hasEntropy = false) {
    const observe: Observer = (layer, projection, tau) => {
      const name = `tau.${layer}.${projection}`;
      const { heads = [] } = this.#sites.get(name) ?? {};
      this.#sites.set(name, { layer, projection, shape: tau.shape, heads });
      outputs[name] = tau;
    };
    const ends: number[] = [];
    const attended: AttentionHooks["attended"] = (layer, logits, weights) => {
      // -Σ w ln w, where ln w = logit - ln Σ exp(logits); a masked logit is finite and its weight 0. [B, N, R, 1]
      const entropy = sub(logSumExp(logits), reduceSum(mul(weights, logits), [-1]));
      const { shape } = entropy;
      const start = ends[layer] ?? 0;
      ends[layer] = start + Number(shape[2]);
      const name = `entropy.${layer}.${start}`;
      this.#rows.set(name, { layer, start, shape });
      outputs[name] = entropy;
      // Of later tokens nobody asks.
      if (start > 0 || Number(shape[2]) > MOST_SHOWN) return;
      outputs[`attention.${layer}`] = reduceMean(weights, [1]);
      this.#weights.set(`attention.${layer}`, Number(shape[2]));
    };
    return { observe, hooks: hasEntropy ? { attended } : {} };
  }

  /** Adds the first `length` tokens of one row of a run, which begins with a window. */
  add(results: Results, row: number, length: number, window: Window): void {
    for (const [i, [name, size]] of [...(this.firstWindow ? [] : this.#weights)].entries())
      this.attention[i] = Array.from({ length: Math.min(length, size) }, (_, from) => {
        const start = (row * size + from) * size;
        return [...results[name]!.subarray(start, start + from + 1)];
      }).flat();
    const numKept = this.firstWindow ? 0 : Math.min(this.#tokens, window.length, length);
    this.firstWindow ??= window;
    for (const [name, { shape, heads }] of this.#sites) {
      // τ is [B, N, T, 1], or [N, T, 1] where it depends on the position alone, or [N, 1, 1] on nothing.
      const [numHeads, tokens] = shape.slice(-3, -1).map(Number) as [number, number];
      const first = shape.length === 4 ? row * numHeads : 0;
      for (let head = 0; head < numHeads; head++) {
        const start = (first + head) * tokens;
        const taus = results[name]!.subarray(start, start + Math.min(length, tokens));
        (heads[head] ??= new Seen()).add(taus, numKept);
      }
    }
    for (const [name, { layer, start, shape }] of this.#rows) {
      const [, heads, rows] = shape.map(Number) as [number, number, number];
      const numRows = Math.max(0, Math.min(rows, length - start));
      const seen = (this.#entropies[layer] ??= new Seen());
      for (let head = 0; head < heads; head++) {
        const at = (row * heads + head) * rows;
        seen.add(results[name]!.subarray(at, at + numRows));
      }
    }
  }

  /** Where there are temperatures, in the graph's order. */
  get sites(): readonly (Site & { readonly heads: readonly Seen[] })[] {
    return [...this.#sites.values()].filter(({ heads }) => heads.length > 0);
  }

  summary(): TemperatureSummary[] {
    return this.sites.map(({ layer, projection, heads }) => {
      const total = (of: "sum" | "count") => heads.reduce((sum, head) => sum + head[of], 0);
      const [min, max] = [heads.map((head) => head.min), heads.map((head) => head.max)];
      const mean = total("sum") / total("count");
      return { layer, projection, min: Math.min(...min), mean, max: Math.max(...max) };
    });
  }

  /** Mean entropy of each layer's rows, over heads and tokens, in nats. */
  entropies(): number[] {
    return this.#entropies.map(({ mean }) => mean);
  }
}

/** τ of one head (or entropies): mean and standard deviation over tokens, and kept ones; squares are of the distance from 1, near which τ is, so that little is lost. */
class Seen {
  min = Infinity;
  max = -Infinity;
  sum = 0;
  squares = 0;
  count = 0;
  readonly kept: number[] = [];

  /** Of tokens, or one for all of them. */
  add(taus: Results[string], numKept = 0): void {
    for (const tau of taus) {
      this.min = Math.min(this.min, tau);
      this.max = Math.max(this.max, tau);
      this.sum += tau;
      this.squares += (tau - 1) ** 2;
    }
    this.count += taus.length;
    for (let i = 0; i < numKept; i++) this.kept.push(taus[i] ?? taus[0]!);
  }

  get mean() {
    return this.sum / this.count;
  }

  get deviation() {
    return Math.sqrt(Math.max(0, this.squares / this.count - (this.mean - 1) ** 2));
  }
}
