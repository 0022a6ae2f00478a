// A compiled model that scores windows of tokens: nats of each token, and summed per window in double precision.

import type { TokenizedText } from "../data/document.ts";
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
  /** Of each scored token, in order, where a scorer gave the loss: its nats, and 1 where it is the argmax. */
  readonly tokenNats?: Float32Array;
  readonly isArgmax?: Uint8Array;
}

interface Done {
  windows: number;
  numTokens: number;
}

export interface ScoreOptions {
  /** Values of the tensors that train, by name. */
  readonly feeds?: Feeds;
  readonly onBatch?: (done: Readonly<Done>) => void;
  /** What was scored before, counted on. */
  readonly done?: Done;
  readonly signal?: AbortSignal | undefined;
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
) {
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
    /** Losses in the order of the windows. */
    async score(
      texts: readonly TokenizedText[],
      windows: readonly Window[],
      { feeds, onBatch, signal, done = { windows: 0, numTokens: 0 } }: ScoreOptions = {},
    ) {
      const losses: WindowLoss[] = [];
      for (let first = 0; first < windows.length; first += batchSize) {
        signal?.throwIfAborted();
        const chosen = windows.slice(first, first + batchSize);
        const batch = packWindows(texts, chosen, { batchSize, context });
        const results = await program.run({ ...feeds, ...batchFeeds(batch) });
        for (const [row, { length }] of chosen.entries()) {
          losses.push(lossOf(results, batch.labels, row * context, context));
          statistics?.add(results, row, length);
        }
        done.windows += chosen.length;
        done.numTokens += batch.numTargets;
        onBatch?.(done);
      }
      return losses;
    },
    dispose: () => program.dispose(),
  };
}

/** Of one row of a batch. */
function lossOf(
  { nats, ranks }: Results,
  labels: Int32Array,
  start: number,
  context: number,
): WindowLoss {
  const row = Array.from({ length: context }, (_, i) => start + i);
  const targets = row.filter((at) => labels[at]! >= 0);
  const tokenNats = Float32Array.from(targets, (at) => nats![at]!);
  const loss = { nats: totalNats(tokenNats), numTokens: targets.length, tokenNats };
  return ranks ? { ...loss, isArgmax: Uint8Array.from(targets, (at) => +(ranks[at] === 0)) } : loss;
}
