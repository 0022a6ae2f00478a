// How graphs are cut: how much of attention and of the loss is computed at a time, and what is joined.

export interface Tiling {
  /** Of so many tokens, the queries of one block of attention, which share their visible keys. */
  readonly queryRows: (length: number) => number;
  /** Tokens whose feed-forward layer is computed at a time. */
  readonly mlpRows: number;
  /** Tokens whose logits exist at a time. */
  readonly lossRows: (vocabSize: number) => number;
  /** What query, key and value do alike is done to their heads together: fewer nodes for some copies. */
  readonly joinsHeads: boolean;
  /** Of how many rows a vocabulary in half precision is a multiple: tensor cores take whole ones only, else they rest. */
  readonly vocabularyRows: number;
}

/** Tokens from which on no cache holds a block, and so many blocks that their nodes count. */
const LONG = 8192;

/**
 * Rows R of a longer window: T / R blocks of a layer take some 50 nodes of 35 kB each, a block with N heads three arrays of
 * N · R · T floats. The sum is least at R² = 1e5 · layers / heads, 200 to 300 for what is common; both are linear in T.
 */
const LONG_ROWS = 256;

/** For processors: what is masked is not computed, and a block stays in the caches. */
export const smallTiles: Tiling = {
  queryRows: (length) => (length > LONG ? LONG_ROWS : 128),
  mlpRows: LONG,
  lossRows: () => 256,
  joinsHeads: false,
  vocabularyRows: 1,
};

/** Bytes of the logits that a GPU computes at a time. */
const LOGITS_BYTES = 2 ** 29;

/** For GPUs, where to launch a kernel costs more than the masked half of a matrix. */
export const largeTiles: Tiling = {
  queryRows: (length) => (length > LONG ? 1024 : Infinity),
  mlpRows: LONG,
  lossRows: (vocabSize) => Math.ceil(LOGITS_BYTES / (4 * vocabSize)),
  joinsHeads: true,
  vocabularyRows: 8,
};
