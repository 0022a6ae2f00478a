// A compiled model that scores windows of tokens: nats summed per window, in double precision.

import type { Tokens } from "../data/tokens.ts";
import { packWindows, type Window } from "../data/windows.ts";
import type { Engine, Feeds, Program } from "../engines/index.ts";
import { simplify } from "../graph/passes.ts";
import type { Tensor } from "../graph/tensor.ts";
import {
  batchFeeds,
  boundWeights,
  buildForward,
  natsOf,
  totalNats,
  type BatchShape,
} from "../model/graph.ts";
import type { OpenedModel } from "../model/model.ts";
import { TemperatureStatistics, type TemperatureSummary } from "./temperature-summary.ts";

export interface WindowLoss {
  /** Sum over the window's scored tokens. */
  readonly nats: number;
  readonly numTokens: number;
}

export interface ScoreOptions {
  /** Values of the tensors that train, by name. */
  readonly feeds?: Feeds;
  readonly onBatch?: (done: { readonly windows: number; readonly numTokens: number }) => void;
  readonly signal?: AbortSignal | undefined;
}

export interface Scorer {
  /** Losses in the order of the windows. */
  score(
    texts: readonly Tokens[],
    windows: readonly Window[],
    options?: ScoreOptions,
  ): Promise<WindowLoss[]>;
  /** What the temperatures were on all tokens scored so far; empty unless observed. */
  temperatures(): TemperatureSummary[];
  dispose(): Promise<void>;
}

export interface ScorerOptions extends BatchShape {
  /** Tensors that are fed at each run, while they train. */
  readonly trainable?: ReadonlySet<string>;
  /** Collect statistics of the temperatures on the way. */
  readonly observe?: boolean;
}

/** Compiles the forward pass and the loss of [batchSize, context] tokens. */
export async function openScorer(
  engine: Engine,
  opened: OpenedModel,
  { batchSize, context, trainable, observe = false }: ScorerOptions,
): Promise<Scorer> {
  const statistics = new TemperatureStatistics();
  const outputs: Record<string, Tensor> = {};
  const graph = buildForward(
    opened,
    { batchSize, context },
    {
      tiling: engine.tiling,
      ...(trainable && { trainable }),
      ...(observe && {
        observe: (layer, projection, tau) => {
          outputs[statistics.watch(layer, projection, tau)] = tau;
        },
      }),
    },
  );
  outputs["nats"] = natsOf(graph);
  const program = await engine.compile(simplify(outputs), boundWeights(opened));
  return {
    score: (texts, windows, options = {}) =>
      scoreWindows(program, { batchSize, context }, statistics, texts, windows, options),
    temperatures: () => statistics.summary(),
    dispose: () => program.dispose(),
  };
}

async function scoreWindows(
  program: Program,
  shape: BatchShape,
  statistics: TemperatureStatistics,
  texts: readonly Tokens[],
  windows: readonly Window[],
  { feeds = {}, onBatch, signal }: ScoreOptions,
): Promise<WindowLoss[]> {
  const losses: WindowLoss[] = [];
  let numTokens = 0;
  for (const batch of packWindows(texts, windows, shape)) {
    signal?.throwIfAborted();
    const results = await program.run({ ...feeds, ...batchFeeds(batch) });
    for (const [row, { length, scoreFrom }] of batch.windows.entries()) {
      const start = row * shape.context;
      const nats = totalNats(results["nats"]!.subarray(start, start + shape.context));
      losses.push({ nats, numTokens: length - scoreFrom });
      statistics.add(results, row, length);
    }
    numTokens += batch.numTargets;
    onBatch?.({ windows: losses.length, numTokens });
  }
  return losses;
}
