// Batches of one training set alone, for tests that have no use for a mixture.
import { type DataCursor, mixedBatches, type TrainingSet } from "../../src/data/training.ts";

export function trainingBatches(training: TrainingSet, cursor: DataCursor) {
  const { rows: numRows } = training.facts;
  return mixedBatches([{ name: "the text", weight: null, numRows, training }], cursor);
}
