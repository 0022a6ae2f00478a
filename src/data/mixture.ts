// Rows of several sources in one order: each gives its share of an epoch, and goes on where it was in the next.

import { UserError } from "../core/errors.ts";
import { createRandom } from "../core/random.ts";
import { sum } from "./document.ts";
import { type DataCursor, rowsFrom, shuffledRows, type TrainingSet } from "./training.ts";
import { type Batch, packWindows } from "./windows.ts";

interface Weighted {
  readonly name: string;
  /** Its share among the weights of all; where none is given, sources count by their rows. */
  readonly weight: number | null;
  /** Rows in an epoch of its own. */
  readonly numRows: number;
}

export interface Source extends Weighted {
  readonly training: TrainingSet;
}

/** How many rows each source gives in an epoch, which has as many as all of them together: by largest remainders. */
function rowsPerEpoch(sources: readonly Weighted[]): readonly number[] {
  const total = sum(sources.map(({ numRows }) => numRows));
  const weights = sources.map(({ weight, numRows }) => weight ?? numRows);
  const exact = weights.map((weight) => (total * weight) / sum(weights));
  const rows = exact.map(Math.floor);
  const restOf = (i: number) => exact[i]! - rows[i]!;
  const byRest = [...rows.keys()].sort((a, b) => restOf(b) - restOf(a));
  for (const i of byRest.slice(0, total - sum(rows))) rows[i]!++;
  const none = rows.indexOf(0);
  if (none < 0) return rows;
  const problem = `would give none of the ${total} sequences of an epoch`;
  throw new UserError(`${sources[none]!.name} ${problem}`, {
    hint: "give it more weight, or leave it out",
  });
}

/** Which share of an epoch's rows each source gives. */
export function sharesOf(sources: readonly Weighted[]): readonly number[] {
  const rows = rowsPerEpoch(sources);
  return rows.map((count) => count / sum(rows));
}

/** Batches of the rows of all sources mixed, in an order that depends on the cursor alone. */
export function mixedBatches(sources: readonly Source[], start: DataCursor) {
  const { seed, epoch, index } = start;
  const shares = rowsPerEpoch(sources);
  /** Which source gives each row of an epoch; its random numbers are no source's. */
  const orderOf = (epoch: number) => {
    const order = Int32Array.from(shares.flatMap((length, i) => Array.from({ length }, () => i)));
    createRandom(seed, ~epoch).shuffle(order);
    return order;
  };
  const order = rowsFrom(start, orderOf);
  const given = shares.map((rows) => epoch * rows);
  for (const i of orderOf(epoch).subarray(0, index)) given[i]!++;
  const rows = sources.map(({ numRows, training }, i) => {
    const at = { seed, epoch: Math.floor(given[i]! / numRows), index: given[i]! % numRows };
    return rowsFrom(at, (epoch) => shuffledRows(training, seed, epoch));
  });
  const streams = sources.map(({ training }) => training.stream);
  const nextRow = () => {
    const source = order.next();
    return rows[source]!.next().map((window) => ({ ...window, text: source }));
  };
  const { context, isPacked } = sources[0]!.training;
  return {
    /** The next rows, on into the next epoch where one ends. */
    next(batchSize: number): Batch {
      const chosen = Array.from({ length: batchSize }, nextRow);
      return packWindows(streams, chosen, { batchSize, context, isPacked });
    },
    /** Handed to `mixedBatches` to continue. */
    cursor: order.cursor,
  };
}
