// What a model is fed: rows of token ids and, for each, the token that follows.

/** Row-major `[batchSize, context]`. */
export interface Batch {
  readonly ids: Int32Array;
  /** The token to predict at each place; −1 where none is. */
  readonly labels: Int32Array;
  /** How many labels are not −1. */
  readonly numTargets: number;
}
