// How graphs are cut: how much of attention and of the loss is computed at a time, and what is joined.

export interface Tiling {
  /** Of so many tokens, the queries of one block of attention, which share their visible keys. */
  readonly queryRows: (length: number) => number;
  /** Tokens whose feed-forward layer, of so many values each, is computed at a time. */
  readonly mlpRows: (size: number) => number;
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

/**
 * Values of a feed-forward layer at a time, of which its way back holds six arrays. Llama-3.2-1B's geometry, two layers,
 * 1 x 4,096 tokens: 1,946 MB at the peak instead of 2,610, in the same time.
 */
const MLP_VALUES = 2 ** 24;

/** For processors: what is masked is not computed, and a block stays in the caches. */
export const smallTiles: Tiling = {
  queryRows: (length) => (length > LONG ? LONG_ROWS : 128),
  mlpRows: (size) => Math.min(LONG, 128 * Math.ceil(MLP_VALUES / size / 128)),
  lossRows: () => 256,
  joinsHeads: false,
  vocabularyRows: 1,
};

/** Bytes of the logits that a GPU computes at a time. */
const LOGITS_BYTES = 2 ** 29;

/** For GPUs, where to launch a kernel costs more than the masked half of a matrix. */
export const largeTiles: Tiling = {
  queryRows: (length) => (length > LONG ? 1024 : Infinity),
  mlpRows: () => LONG,
  lossRows: (vocabSize) => Math.ceil(LOGITS_BYTES / (4 * vocabSize)),
  joinsHeads: true,
  vocabularyRows: 8,
};
