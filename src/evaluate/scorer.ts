// A compiled model that scores windows of tokens: nats of each token, and summed per window in double precision.

import type { TokenizedText } from "../data/document.ts";
import { checkBatch, numInputs, ofShard, packRows, packWindows } from "../data/windows.ts";
import type { BatchShape, Shard, Window } from "../data/windows.ts";
import type { Engine, Feeds, Results } from "../engines/engine.ts";
import { inOrder } from "../engines/pool.ts";
import { simplify } from "../graph/passes.ts";
import type { Tensor } from "../graph/tensor.ts";
import * as forward from "../model/graph.ts";
import type { OpenedModel } from "../model/opened.ts";
import type { AttentionStatistics } from "./attention.ts";

export interface WindowLoss {
  /** Sum over the window's scored tokens. */
  readonly nats: number;
  readonly numTokens: number;
  /** Of each scored token, in order, where a scorer gave the loss: its nats, and 1 where it is the argmax. */
  readonly tokenNats?: Float32Array;
  readonly isArgmax?: Uint8Array;
}

export type Losses = readonly WindowLoss[];

export interface ScoreOptions {
  /** Values of the tensors that train, by name. */
  readonly feeds?: Feeds;
  readonly onBatch?: (done: { readonly windows: number; readonly numTokens: number }) => void;
  /** What was scored before, counted on. */
  readonly done?: { windows: number; numTokens: number };
  readonly signal?: AbortSignal | undefined;
  /** Scores every n-th run of the graph only, each with the windows that it has without shards. */
  readonly shard?: Shard | undefined;
  /** Keeps of each window its sum, and not four bytes for each token. */
  readonly sumsOnly?: boolean;
}

/** Of a window that is another shard's. */
const UNSCORED: WindowLoss = { nats: 0, numTokens: 0 };

export interface ScorerOptions extends BatchShape {
  /** Tensors that are fed at each run, while they train. */
  readonly trainable?: ReadonlySet<string> | undefined;
  readonly observe?: AttentionStatistics;
  /** Whether it observes the entropy of attention too. */
  readonly needsEntropy?: boolean;
  readonly needsArgmax?: boolean;
}

/** Compiles the forward pass and the loss of [batchSize, context] tokens. */
export async function openScorer(engine: Engine, opened: OpenedModel, options: ScorerOptions) {
  const { trainable, observe: statistics, needsEntropy, needsArgmax = false, ...shape } = options;
  const outputs: Record<string, Tensor> = {};
  const { tiling } = engine;
  const { batchSize, context, isPacked } = shape;
  checkBatch(shape);
  const watched = statistics?.watch(outputs, needsEntropy);
  const graph = forward.buildForward(opened, shape, { tiling, trainable, ...watched });
  outputs["nats"] = forward.natsOf(graph);
  if (needsArgmax) outputs["ranks"] = forward.ranksOf(graph);
  const program = await engine.compile(simplify(outputs), forward.boundWeights(opened));
  const dispose = () => program.dispose();
  return {
    /** Losses in the order of the windows; those that a shard leaves to others have no tokens. */
    async score(
      texts: readonly TokenizedText[],
      windows: readonly Window[],
      { feeds, onBatch, signal, shard, sumsOnly, ...given }: ScoreOptions = {},
    ) {
      const { done = { windows: 0, numTokens: 0 } } = given;
      const losses = new Map<Window, WindowLoss>();
      const rows = isPacked ? packRows(windows, context) : windows.map((window) => [window]);
      const run = async (first: number) => {
        signal?.throwIfAborted();
        const chosen = rows.slice(first, first + batchSize);
        const batch = packWindows(texts, chosen, shape);
        const results = await program.run({ ...feeds, ...forward.batchFeeds(batch) });
        return { chosen, batch, results };
      };
      const starts = [...rows.keys()].filter((row) => row % batchSize === 0);
      const ahead = program.ahead ?? engine.lanes;
      await inOrder(ofShard(starts, shard), ahead, run, ({ chosen, batch, results }) => {
        for (const [row, inRow] of chosen.entries()) {
          let at = row * context;
          for (const window of inRow) {
            const inputs = Array.from({ length: numInputs(window) }, (_, i) => at + i);
            const targets = inputs.filter((place) => batch.labels[place]! >= 0);
            const { tokenNats, ...sum } = lossOf(results, targets);
            losses.set(window, sumsOnly ? sum : { ...sum, tokenNats });
            at += inputs.length;
          }
          // A last token that fits is an input too.
          statistics?.add(results, row, Math.min(context, at + 1 - row * context), inRow[0]!);
        }
        done.windows += chosen.flat().length;
        done.numTokens += batch.numTargets;
        onBatch?.(done);
      });
      return windows.map((window) => losses.get(window) ?? UNSCORED);
    },
    dispose,
    [Symbol.asyncDispose]: dispose,
  };
}

/** Of the tokens at these places of a batch. */
function lossOf({ nats, ranks }: Results, targets: readonly number[]) {
  const tokenNats = Float32Array.from(targets, (at) => nats![at]!);
  const loss = { nats: forward.totalNats(tokenNats), numTokens: targets.length, tokenNats };
  return ranks ? { ...loss, isArgmax: Uint8Array.from(targets, (at) => +(ranks[at] === 0)) } : loss;
}
