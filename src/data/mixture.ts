// Rows of several sources in one order: each gives its share of an epoch, and goes on where it was in the next.

import { UserError } from "../core/errors.ts";
import { createRandom } from "../core/random.ts";
import type { DataCursor } from "./training.ts";
import type { Batch } from "./windows.ts";

/** Batches of one source, in an order of its own that depends on the cursor alone. */
export type Batches = { next(batchSize: number): Batch; cursor(): DataCursor };

export interface Source {
  readonly name: string;
  /** Its share among the weights of all; where none is given, sources count by their rows. */
  readonly weight: number | null;
  /** Rows in an epoch of its own. */
  readonly numRows: number;
  open(cursor: DataCursor): Batches;
}

/** How many rows each source gives in an epoch, which has as many as all of them together: by largest remainders. */
function rowsPerEpoch(sources: readonly Omit<Source, "open">[]): readonly number[] {
  const sum = (numbers: readonly number[]) => numbers.reduce((a, b) => a + b, 0);
  const total = sum(sources.map(({ numRows }) => numRows));
  const weights = sources.map(({ weight, numRows }) => weight ?? numRows);
  const exact = weights.map((weight) => (total * weight) / sum(weights));
  const rows = exact.map(Math.floor);
  const restOf = (i: number) => exact[i]! - rows[i]!;
  const byRest = [...rows.keys()].sort((a, b) => restOf(b) - restOf(a));
  for (const i of byRest.slice(0, total - sum(rows))) rows[i]!++;
  const none = rows.indexOf(0);
  if (none < 0) return rows;
  throw new UserError(
    `${sources[none]!.name} would give none of the ${total} sequences of an epoch`,
    { hint: "give it more weight, or leave it out" },
  );
}

/** Which share of an epoch's rows each source gives. */
export function sharesOf(sources: readonly Omit<Source, "open">[]): readonly number[] {
  const rows = rowsPerEpoch(sources);
  const total = rows.reduce((a, b) => a + b, 0);
  return rows.map((count) => count / total);
}

/** The rows of all sources mixed, in an order that depends on the cursor alone; those of one as they come. */
export function mixedBatches(sources: readonly Source[], start: DataCursor): Batches {
  if (sources.length === 1) return sources[0]!.open(start);
  const shares = rowsPerEpoch(sources);
  let { seed, epoch, index } = start;
  /** Which source gives each row of an epoch; its random numbers are no source's. */
  const orderOf = (epoch: number) => {
    const order = new Int32Array(shares.reduce((sum, length) => sum + length, 0));
    let at = 0;
    for (const [i, length] of shares.entries()) order.fill(i, at, (at += length));
    createRandom(seed, ~epoch).shuffle(order);
    return order;
  };
  let order = orderOf(epoch);
  const given = shares.map((rows) => epoch * rows);
  for (const i of order.subarray(0, index)) given[i]!++;
  const opened = sources.map(({ numRows, open }, i) =>
    open({ seed, epoch: Math.floor(given[i]! / numRows), index: given[i]! % numRows }),
  );
  const nextRow = () => {
    if (index >= order.length) [epoch, index, order] = [epoch + 1, 0, orderOf(epoch + 1)];
    return opened[order[index++]!]!.next(1);
  };
  return {
    next: (batchSize) => stacked(Array.from({ length: batchSize }, nextRow)),
    cursor: () => ({ seed, epoch, index }),
  };
}

function stacked(rows: readonly Batch[]): Batch {
  const joined = (key: "ids" | "labels" | "positions") => {
    const { length } = rows[0]!.ids;
    const result = new Int32Array(rows.length * length);
    for (const [i, row] of rows.entries()) result.set(row[key]!, i * length);
    return result;
  };
  return {
    ids: joined("ids"),
    labels: joined("labels"),
    ...(rows[0]!.positions && { positions: joined("positions") }),
    numTargets: rows.reduce((sum, row) => sum + row.numTargets, 0),
  };
}
