// Large sums over micro batches, shared: of the values that are to be added, each rank adds up an equal part, in the
// micro batches' order, so that bits are those of one process; no link carries more than the whole twice.

import type { Adding, Results } from "../engine.ts";

/** From so many values on, ranks share what rank 0 would otherwise send or get for each. */
export const SHARED_VALUES = 2 ** 16;

export interface Part {
  readonly id: number;
  readonly index: number;
  /** One after the other. */
  readonly values: readonly Float32Array[];
}

/** Where a rank's part of so many values begins. */
export const startOf = (rank: number, ranks: number, length: number) =>
  Math.floor((length * rank) / ranks);

/** Bytes that a step sends over the link that has most of them: rank 0's, or all alike where they share. */
export function linkBytes(values: number, microBatches: number, ranks: number) {
  const ofEach = Math.ceil(microBatches / ranks);
  const times = values < SHARED_VALUES ? (ranks - 1) * (1 + ofEach) : ofEach + 2;
  return 4 * values * times;
}

export type Sums = ReturnType<typeof openSums>;

/** `send` gives another rank its part. */
export function openSums(
  { rank, size }: { readonly rank: number; readonly size: number },
  send: (to: number, part: Part) => Promise<unknown>,
) {
  /** By program: the next micro batch's place, those that came before their turn, and the sum. */
  const sums = new Map<number, { next: number; early: Map<number, Part>; sum: Float32Array }>();
  const add = async ({ id, index, values }: Part) => {
    const length = values.reduce((sum, part) => sum + part.length, 0);
    const of = sums.get(id) ?? { next: 0, early: new Map(), sum: new Float32Array(length) };
    sums.set(id, of);
    // The next run of the same engine overwrites what has to wait.
    const kept = index === of.next ? values : values.map((part) => part.slice());
    of.early.set(index, { id, index, values: kept });
    for (let part; (part = of.early.get(of.next)); of.early.delete(of.next++)) {
      let at = 0;
      for (const values of part.values) {
        if (of.next === 0) of.sum.set(values, at);
        else for (let i = 0; i < values.length; i++) of.sum[at + i]! += values[i]!;
        at += values.length;
      }
    }
  };
  return {
    add,
    /** A new program of this number has nothing of one whose step failed. */
    begin: (id: number) => sums.delete(id),
    /** This rank's part of a sum, which ends with it. */
    take: async (id: number) => {
      const { sum } = sums.get(id)!;
      sums.delete(id);
      return sum;
    },
    /** Gives every rank its part of a run's results, and returns what is not to be added. */
    share: async (id: number, results: Results, { index, names }: Adding): Promise<Results> => {
      const arrays = names.map((name) => results[name]!);
      const length = arrays.reduce((sum, values) => sum + values.length, 0);
      const part = (to: number) => {
        const [from, end] = [startOf(to, size, length), startOf(to + 1, size, length)];
        let at = 0;
        return arrays.flatMap((values) => {
          const start = at;
          at += values.length;
          const cut = values.subarray(Math.max(0, from - start), Math.max(0, end - start));
          return cut.length > 0 ? [cut] : [];
        });
      };
      const give = (to: number, of: Part) => (to === rank ? add(of) : send(to, of));
      const ranks = Array.from({ length: size }, (_, to) => to);
      await Promise.all(ranks.map((to) => give(to, { id, index, values: part(to) })));
      return Object.fromEntries(Object.entries(results).filter(([name]) => !names.includes(name)));
    },
  };
}
