// A compiled model that scores windows of tokens: nats of each token, and summed per window in double precision.

import type { Tokens } from "../data/tokens.ts";
import { packWindows, type Window } from "../data/windows.ts";
import type { Engine, Feeds, Results } from "../engines/index.ts";
import { simplify } from "../graph/passes.ts";
import type { Tensor } from "../graph/tensor.ts";
import {
  batchFeeds,
  boundWeights,
  buildForward,
  natsOf,
  ranksOf,
  totalNats,
  type BatchShape,
} from "../model/graph.ts";
import type { OpenedModel } from "../model/model.ts";
import type { TemperatureStatistics } from "./temperature-summary.ts";

export interface WindowLoss {
  /** Sum over the window's scored tokens. */
  readonly nats: number;
  readonly numTokens: number;
}

export interface WindowScore extends WindowLoss {
  /** Of each scored token, in order. */
  readonly tokenNats: Float32Array;
  /** 1 for a token that no other has a greater logit than; empty unless asked for. */
  readonly isArgmax: Uint8Array;
}

export interface ScoreOptions {
  /** Values of the tensors that train, by name. */
  readonly feeds?: Feeds;
  readonly onBatch?: (done: { readonly windows: number; readonly numTokens: number }) => void;
  readonly signal?: AbortSignal | undefined;
}

export interface Scorer {
  /** In the order of the windows. */
  score(
    texts: readonly Tokens[],
    windows: readonly Window[],
    options?: ScoreOptions,
  ): Promise<WindowScore[]>;
  dispose(): Promise<void>;
}

export interface ScorerOptions extends BatchShape {
  /** Tensors that are fed at each run, while they train. */
  readonly trainable?: ReadonlySet<string>;
  /** Collects what the temperatures are on the way. */
  readonly observe?: TemperatureStatistics;
  readonly needsArgmax?: boolean;
}

/** Compiles the forward pass and the loss of [batchSize, context] tokens. */
export async function openScorer(
  engine: Engine,
  opened: OpenedModel,
  { batchSize, context, trainable, observe: statistics, needsArgmax = false }: ScorerOptions,
): Promise<Scorer> {
  const outputs: Record<string, Tensor> = {};
  const graph = buildForward(
    opened,
    { batchSize, context },
    {
      tiling: engine.tiling,
      ...(trainable && { trainable }),
      ...(statistics && {
        observe: (layer, projection, tau) => {
          outputs[statistics.watch(layer, projection, tau)] = tau;
        },
      }),
    },
  );
  outputs["nats"] = natsOf(graph);
  if (needsArgmax) outputs["ranks"] = ranksOf(graph);
  const program = await engine.compile(simplify(outputs), boundWeights(opened));
  return {
    async score(texts, windows, { feeds = {}, onBatch, signal } = {}) {
      const scores: WindowScore[] = [];
      let numTokens = 0;
      for (const batch of packWindows(texts, windows, { batchSize, context })) {
        signal?.throwIfAborted();
        const results = await program.run({ ...feeds, ...batchFeeds(batch) });
        for (const [row, { length }] of batch.windows.entries()) {
          scores.push(scoreOf(results, batch.labels, row * context, context));
          statistics?.add(results, row, Math.min(length, context), context);
        }
        numTokens += batch.numTargets;
        onBatch?.({ windows: scores.length, numTokens });
      }
      return scores;
    },
    dispose: () => program.dispose(),
  };
}

/** The score of one row of a batch. */
function scoreOf(
  { nats, ranks }: Results,
  labels: Int32Array,
  start: number,
  context: number,
): WindowScore {
  const row = Array.from({ length: context }, (_, i) => start + i);
  const targets = row.filter((at) => labels[at]! >= 0);
  const tokenNats = Float32Array.from(targets, (at) => nats![at]!);
  const isArgmax = Uint8Array.from(ranks ? targets : [], (at) => (ranks![at] === 0 ? 1 : 0));
  return { nats: totalNats(tokenNats), numTokens: targets.length, tokenNats, isArgmax };
}
