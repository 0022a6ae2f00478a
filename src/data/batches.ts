// Training batches: one stream of tokens in blocks, shuffled anew each epoch, resumable at any batch.

import { invariant } from "../core/errors.ts";
import { createRandom } from "../core/random.ts";
import { countTargets, putLabels, type TokenizedText } from "./document.ts";
import { createTokens } from "./tokens.ts";

/** What a model is fed: rows of token ids, row-major `[batchSize, context]`, and for each the token that follows. */
export interface Batch {
  readonly ids: Int32Array;
  /** The token to predict at each place; −1 where none is. */
  readonly labels: Int32Array;
  /** How many labels are not −1. */
  readonly numTargets: number;
}

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
 * begins with it already). What is between texts is a target: it is how a model learns to end.
 */
export function joinForTraining(
  texts: readonly TokenizedText[],
  {
    vocabSize,
    endOfText,
    prefix,
  }: {
    readonly vocabSize: number;
    readonly endOfText: number | undefined;
    readonly prefix: readonly number[];
  },
): TokenizedText {
  if (texts.length === 1) return texts[0]!;
  const between = endOfText === undefined || prefix[0] === endOfText ? [] : [endOfText];
  const length = texts.reduce((sum, { tokens }) => sum + between.length + tokens.length, 0);
  const stream = createTokens(Math.max(0, length - between.length), vocabSize);
  const isTarget = texts.some((text) => text.isTarget)
    ? new Uint8Array(stream.length).fill(1)
    : undefined;
  let at = 0;
  for (const text of texts) {
    if (at > 0) {
      stream.set(between, at);
      at += between.length;
    }
    stream.set(text.tokens, at);
    if (text.isTarget) isTarget!.set(text.isTarget, at);
    at += text.tokens.length;
  }
  return { tokens: stream, ...(isTarget && { isTarget }) };
}

/**
 * Blocks of `context + 1` tokens that overlap by one, so that in an epoch every token but the first is a target once.
 * A row's ids are a block without its last token, its labels the block without its first; a last shorter block has
 * labels −1 behind it. Blocks without a target are left out.
 */
export function trainingBatches(
  stream: TokenizedText,
  { context, cursor }: { readonly context: number; readonly cursor: DataCursor },
): TrainingBatches {
  const { tokens } = stream;
  const endOf = (block: number) => Math.min((block + 1) * context + 1, tokens.length);
  const blocks = Array.from({ length: Math.ceil((tokens.length - 1) / context) }, (_, i) => i);
  const used = blocks.filter((i) => countTargets(stream, i * context + 1, endOf(i)) > 0);
  const numBlocks = used.length;
  invariant(numBlocks > 0, `${tokens.length} tokens make no training block`);
  let { epoch, index } = cursor;
  let order = shuffled(used, cursor.seed, epoch);

  function nextBlock(): number {
    if (index >= numBlocks) {
      epoch++;
      index = 0;
      order = shuffled(used, cursor.seed, epoch);
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
        const block = nextBlock();
        const [start, end] = [block * context, endOf(block)];
        ids.set(tokens.subarray(start, start + context), row * context);
        putLabels(labels, row * context, stream, start + 1, end);
        numTargets += countTargets(stream, start + 1, end);
      }
      return { ids, labels, numTargets };
    },
    cursor: () => ({ seed: cursor.seed, epoch, index }),
  };
}

/** Depends on the seed and the epoch alone, so that a cursor is all there is to save. */
function shuffled(blocks: readonly number[], seed: number, epoch: number): Int32Array {
  const order = Int32Array.from(blocks);
  createRandom(seed, epoch).shuffle(order);
  return order;
}
