// Training batches: one stream of tokens in blocks, shuffled anew each epoch, resumable at any batch.

import { invariant } from "../core/errors.ts";
import { createRandom } from "../core/random.ts";
import type { Batch } from "./batch.ts";
import { createTokens, type Tokens } from "./tokens.ts";

/** Where in the data a run is: the next block of an epoch's order. */
export interface DataCursor {
  readonly seed: number;
  readonly epoch: number;
  readonly index: number;
}

export interface TrainingBatches {
  readonly numBlocks: number;
  /** The next blocks in shuffled order, on into the next epoch where one ends. */
  next(batchSize: number): Batch;
  /** Saved with a checkpoint and handed to `trainingBatches` to continue. */
  cursor(): DataCursor;
}

/**
 * All texts as one stream: each with its prefix in front, the end-of-text token between them (but where the prefix
 * begins with it already).
 */
export function joinForTraining(
  texts: readonly Tokens[],
  {
    vocabSize,
    endOfText,
    prefix,
  }: {
    readonly vocabSize: number;
    readonly endOfText: number | undefined;
    readonly prefix: readonly number[];
  },
): Tokens {
  if (texts.length === 1) return texts[0]!;
  const between = endOfText === undefined || prefix[0] === endOfText ? [] : [endOfText];
  const length = texts.reduce((sum, text) => sum + between.length + text.length, -between.length);
  const stream = createTokens(Math.max(0, length), vocabSize);
  let at = 0;
  for (const text of texts) {
    if (at > 0) {
      stream.set(between, at);
      at += between.length;
    }
    stream.set(text, at);
    at += text.length;
  }
  return stream;
}

/**
 * Blocks of `context + 1` tokens that overlap by one, so that in an epoch every token but the first is a target once.
 * A row's ids are a block without its last token, its labels the block without its first; a last shorter block has
 * labels −1 behind it.
 */
export function trainingBatches(
  stream: Tokens,
  { context, cursor }: { readonly context: number; readonly cursor: DataCursor },
): TrainingBatches {
  const numBlocks = Math.ceil((stream.length - 1) / context);
  invariant(numBlocks > 0, `${stream.length} tokens make no training block`);
  let { epoch, index } = cursor;
  let order = blockOrder(numBlocks, cursor.seed, epoch);

  function nextBlock(): number {
    if (index >= numBlocks) {
      epoch++;
      index = 0;
      order = blockOrder(numBlocks, cursor.seed, epoch);
    }
    return order[index++]!;
  }

  return {
    numBlocks,
    next(batchSize) {
      const ids = new Int32Array(batchSize * context);
      const labels = new Int32Array(batchSize * context).fill(-1);
      let numTargets = 0;
      for (let row = 0; row < batchSize; row++) {
        const start = nextBlock() * context;
        const targets = stream.subarray(start + 1, start + 1 + context);
        ids.set(stream.subarray(start, start + context), row * context);
        labels.set(targets, row * context);
        numTargets += targets.length;
      }
      return { ids, labels, numTargets };
    },
    cursor: () => ({ seed: cursor.seed, epoch, index }),
  };
}

/** Depends on the seed and the epoch alone, so that a cursor is all there is to save. */
function blockOrder(numBlocks: number, seed: number, epoch: number): Int32Array {
  const order = Int32Array.from({ length: numBlocks }, (_, block) => block);
  createRandom(seed, epoch).shuffle(order);
  return order;
}
