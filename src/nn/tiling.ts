// How much of attention and of the loss a graph computes at a time, in rows.

export interface Tiling {
  /** Queries of one block of attention, which share their visible keys. */
  readonly queryRows: number;
  /** Tokens whose logits exist at a time. */
  readonly lossRows: (vocabSize: number) => number;
}

/** For processors: what is masked is not computed, and a block stays in the caches. */
export const smallTiles: Tiling = { queryRows: 128, lossRows: () => 256 };

/** Bytes of the logits that a GPU computes at a time. */
const LOGITS_BYTES = 2 ** 29;

/** For GPUs, where to launch a kernel costs more than the masked half of a matrix. */
export const largeTiles: Tiling = {
  queryRows: Number.POSITIVE_INFINITY,
  lossRows: (vocabSize) => Math.ceil(LOGITS_BYTES / (4 * vocabSize)),
};
