// How graphs are cut: how much of attention and of the loss is computed at a time, and what is joined.

export interface Tiling {
  /** Queries of one block of attention, which share their visible keys. */
  readonly queryRows: number;
  /** Tokens whose logits exist at a time. */
  readonly lossRows: (vocabSize: number) => number;
  /** What query, key and value do alike is done to their heads together: fewer nodes for some copies. */
  readonly joinsHeads: boolean;
  /** Of how many rows a vocabulary in half precision is a multiple: tensor cores take whole ones only, else they rest. */
  readonly vocabularyRows: number;
}

/** For processors: what is masked is not computed, and a block stays in the caches. */
export const smallTiles: Tiling = {
  queryRows: 128,
  lossRows: () => 256,
  joinsHeads: false,
  vocabularyRows: 1,
};

/** Bytes of the logits that a GPU computes at a time. */
const LOGITS_BYTES = 2 ** 29;

/** For GPUs, where to launch a kernel costs more than the masked half of a matrix. */
export const largeTiles: Tiling = {
  queryRows: Number.POSITIVE_INFINITY,
  lossRows: (vocabSize) => Math.ceil(LOGITS_BYTES / (4 * vocabSize)),
  joinsHeads: true,
  vocabularyRows: 8,
};
