// A compiled model that scores windows of tokens: nats of each token, and summed per window in double precision.

import type { TokenizedText } from "../data/document.ts";
import { type BatchShape, numInputs, packRows, packWindows, type Window } from "../data/windows.ts";
import { type Engine, type Feeds, inOrder, type Results } from "../engines/index.ts";
import type { Shape } from "../core/shape.ts";
import { simplify } from "../graph/passes.ts";
import type { Tensor } from "../graph/tensor.ts";
import {
  batchFeeds,
  boundWeights,
  buildForward,
  natsOf,
  ranksOf,
  totalNats,
} from "../model/graph.ts";
import type { OpenedModel } from "../model/open.ts";
import type { Projection } from "../nn/attention.ts";

export interface WindowLoss {
  /** Sum over the window's scored tokens. */
  readonly nats: number;
  readonly numTokens: number;
  /** Of each scored token, in order, where a scorer gave the loss: its nats, and 1 where it is the argmax. */
  readonly tokenNats?: Float32Array;
  readonly isArgmax?: Uint8Array;
}

export interface ScoreOptions {
  /** Values of the tensors that train, by name. */
  readonly feeds?: Feeds;
  readonly onBatch?: (done: { readonly windows: number; readonly numTokens: number }) => void;
  /** What was scored before, counted on. */
  readonly done?: { windows: number; numTokens: number };
  readonly signal?: AbortSignal | undefined;
}

interface ScorerOptions extends BatchShape {
  /** Tensors that are fed at each run, while they train. */
  readonly trainable?: ReadonlySet<string>;
  readonly observe?: TemperatureStatistics;
  readonly needsArgmax?: boolean;
}

/** Compiles the forward pass and the loss of [batchSize, context] tokens. */
export async function openScorer(
  engine: Engine,
  opened: OpenedModel,
  { trainable, observe: statistics, needsArgmax = false, ...shape }: ScorerOptions,
) {
  const outputs: Record<string, Tensor> = {};
  const observe =
    statistics &&
    ((layer: number, projection: Projection, tau: Tensor) => {
      outputs[statistics.watch(layer, projection, tau)] = tau;
    });
  const { tiling } = engine;
  const { batchSize, context, isPacked } = shape;
  const graph = buildForward(opened, shape, { tiling, trainable, observe });
  outputs["nats"] = natsOf(graph);
  if (needsArgmax) outputs["ranks"] = ranksOf(graph);
  const program = await engine.compile(simplify(outputs), boundWeights(opened));
  return {
    /** Losses in the order of the windows. */
    async score(
      texts: readonly TokenizedText[],
      windows: readonly Window[],
      { feeds, onBatch, signal, done = { windows: 0, numTokens: 0 } }: ScoreOptions = {},
    ) {
      const losses = new Map<Window, WindowLoss>();
      const rows = isPacked ? packRows(windows, context) : windows.map((window) => [window]);
      const run = async (first: number) => {
        signal?.throwIfAborted();
        const chosen = rows.slice(first, first + batchSize);
        const batch = packWindows(texts, chosen, shape);
        return { chosen, batch, results: await program.run({ ...feeds, ...batchFeeds(batch) }) };
      };
      const numBatches = Math.ceil(rows.length / batchSize);
      const starts = Array.from({ length: numBatches }, (_, i) => i * batchSize);
      await inOrder(starts, engine.lanes, run, ({ chosen, batch, results }) => {
        for (const [row, inRow] of chosen.entries()) {
          let at = row * context;
          for (const window of inRow) {
            const inputs = Array.from({ length: numInputs(window) }, (_, i) => at + i);
            const targets = inputs.filter((place) => batch.labels[place]! >= 0);
            losses.set(window, lossOf(results, targets));
            at += inputs.length;
          }
          // A last token that fits is an input too.
          statistics?.add(results, row, Math.min(context, at + 1 - row * context));
        }
        done.windows += chosen.flat().length;
        done.numTokens += batch.numTargets;
        onBatch?.(done);
      });
      return windows.map((window) => losses.get(window)!);
    },
    dispose: () => program.dispose(),
  };
}

/** Of the tokens at these places of a batch. */
function lossOf({ nats, ranks }: Results, targets: readonly number[]): WindowLoss {
  const tokenNats = Float32Array.from(targets, (at) => nats![at]!);
  const loss = { nats: totalNats(tokenNats), numTokens: targets.length, tokenNats };
  return ranks ? { ...loss, isArgmax: Uint8Array.from(targets, (at) => +(ranks[at] === 0)) } : loss;
}

/** What a layer's τ of one projection does on real text, over all heads and tokens seen. */
export interface TemperatureSummary {
  readonly layer: number;
  readonly projection: Projection;
  readonly min: number;
  readonly mean: number;
  readonly max: number;
}

/** The same of each head: the mean, and the standard deviation over tokens. */
export interface HeadTemperatures extends Pick<TemperatureSummary, "layer" | "projection"> {
  readonly mean: readonly number[];
  readonly deviation: readonly number[];
}

/** Collects the least, mean and greatest τ of each layer and projection. */
export class TemperatureStatistics {
  readonly #watched = new Map<string, ReturnType<typeof nothingSeen>>();

  /** Registers a layer's τ, as the graph that runs next has it, and gives the name of the output that carries it. */
  watch(layer: number, projection: Projection, { shape }: Tensor): string {
    const name = `tau.${layer}.${projection}`;
    const seen = this.#watched.get(name) ?? nothingSeen(layer, projection);
    this.#watched.set(name, { ...seen, shape });
    return name;
  }

  /** Adds the first `length` tokens of one row of a run. */
  add(results: Results, row: number, length: number): void {
    for (const [name, watched] of this.#watched) {
      // τ is [B, N, T, 1], or [N, T, 1] where it depends on the position alone, or [N, 1, 1] on nothing.
      const { shape } = watched;
      const [heads, tokens] = shape.slice(-3, -1).map(Number) as [number, number];
      const first = shape.length === 4 ? row * heads : 0;
      for (let head = 0; head < heads; head++) {
        const start = (first + head) * tokens;
        const own = (watched.heads[head] ??= { count: 0, sum: 0, squares: 0 });
        for (const tau of results[name]!.subarray(start, start + Math.min(length, tokens))) {
          watched.min = Math.min(watched.min, tau);
          watched.max = Math.max(watched.max, tau);
          watched.sum += tau;
          watched.count += 1;
          own.count += 1;
          own.sum += tau;
          own.squares += (tau - 1) ** 2; // from 1, near which they are, so that little is lost
        }
      }
    }
  }

  summary(): TemperatureSummary[] {
    const all = [...this.#watched.values()].filter(({ count }) => count > 0);
    return all.map(({ layer, projection, min, max, sum, count }) => {
      return { layer, projection, min, mean: sum / count, max };
    });
  }

  byHead(): HeadTemperatures[] {
    const all = [...this.#watched.values()].filter(({ count }) => count > 0);
    return all.map(({ layer, projection, heads }) => {
      const mean = heads.map(({ sum, count }) => sum / count);
      const deviation = heads.map(({ squares, count }, head) =>
        Math.sqrt(Math.max(0, squares / count - (mean[head]! - 1) ** 2)),
      );
      return { layer, projection, mean, deviation };
    });
  }
}

function nothingSeen(layer: number, projection: Projection) {
  const shape: Shape = [];
  const heads: { count: number; sum: number; squares: number }[] = [];
  return { layer, projection, shape, heads, min: Infinity, max: -Infinity, sum: 0, count: 0 };
}
