// What the host does to every value of a step: gradients of micro batches summed, their norm, AdamW. In chunks, so that
// several threads share the work of many values, and the result depends on no number of threads.

import { type AdamOptions, adamW, globalNorm, sumOfSquares, type TrainedTensor } from "./adamw.ts";
import type { startHelper } from "./helper.ts";

/** What the threads read and write: all in memory that they share. */
export interface HostArrays {
  readonly tensors: readonly TrainedTensor[];
  /** Of each tensor, the sum of the micro batches' gradients. */
  readonly sums: readonly Float32Array[];
  /** Of each chunk, the sum of squares of `sums`. */
  readonly squares: Float64Array;
}

export type HostWork =
  /** The first of a step's micro batches takes the place of the last step's sum. */
  | { readonly op: "add"; readonly gradients: readonly Float32Array[]; readonly isFirst: boolean }
  | { readonly op: "squares" }
  | {
      readonly op: "update";
      readonly options: AdamOptions;
      readonly step: number;
      readonly factor: number;
      /** Of each tensor. */
      readonly learningRates: readonly number[];
    };

const CHUNK = 2 ** 20;
/** Values from which on threads are worth their start. */
const MANY = 2 ** 22;

const totalOf = (numbers: Iterable<number>) => [...numbers].reduce((sum, x) => sum + x, 0);

/** Does one of so many equal shares of the work. */
export function perform(work: HostWork, { arrays, share, shares }: Share): void {
  let chunk = 0;
  for (const [i, tensor] of arrays.tensors.entries())
    for (let from = 0; from < tensor.values.length; from += CHUNK, chunk++)
      if (chunk % shares === share)
        onChunk(work, arrays, i, { from, to: Math.min(from + CHUNK, tensor.values.length) }, chunk);
}

type Range = Readonly<Record<"from" | "to", number>>;

function onChunk(work: HostWork, arrays: HostArrays, i: number, range: Range, chunk: number) {
  const sum = arrays.sums[i]!;
  if (work.op === "squares") arrays.squares[chunk] = sumOfSquares(sum, range);
  else if (work.op === "update") {
    const { options, step, factor, learningRates } = work;
    const how = { step, factor, learningRate: learningRates[i]!, ...range };
    adamW(arrays.tensors[i]!, sum, options, how);
  } else {
    const gradient = work.gradients[i]!;
    if (work.isFirst) sum.set(gradient.subarray(range.from, range.to), range.from);
    else for (let at = range.from; at < range.to; at++) sum[at]! += gradient[at]!;
  }
}

export interface Share {
  readonly arrays: HostArrays;
  readonly share: number;
  readonly shares: number;
}

export type Host = ReturnType<typeof openHost>;

/** This thread alone where there are few values, else as many as given, which `start` starts: values and moments are shared. */
export function openHost(
  tensors: readonly TrainedTensor[],
  { threads = 1, start }: { threads?: number; start?: typeof startHelper } = {},
) {
  const size = totalOf(tensors.map(({ values }) => values.length));
  const chunks = totalOf(tensors.map(({ values }) => Math.ceil(values.length / CHUNK)));
  const shares = start && size >= MANY ? Math.max(1, Math.min(threads, chunks)) : 1;
  const bytes = (length: number) =>
    shares > 1 ? new SharedArrayBuffer(length) : new ArrayBuffer(length);
  const sums = tensors.map(({ values }) => new Float32Array(bytes(4 * values.length)));
  const arrays: HostArrays = { tensors, sums, squares: new Float64Array(bytes(8 * chunks)) };
  const helpers = Array.from({ length: shares - 1 }, (_, i) =>
    start!({ arrays, share: i + 1, shares }),
  );
  const run = async (work: HostWork) => {
    const others = helpers.map((helper) => helper.ask(work));
    perform(work, { arrays, share: 0, shares });
    await Promise.all(others);
  };
  return {
    sums: new Map(tensors.map(({ name }, i) => [name, arrays.sums[i]!])),
    /** Takes a micro batch's gradients, by name. */
    add: (gradients: ReadonlyMap<string, Float32Array>, isFirst: boolean) =>
      run({ op: "add", gradients: tensors.map(({ name }) => gradients.get(name)!), isFirst }),
    /** Euclidean norm of all sums together, in double precision. */
    norm: async () => {
      if (size < MANY) return globalNorm(arrays.sums);
      await run({ op: "squares" });
      return Math.sqrt(totalOf(arrays.squares));
    },
    update: (how: Omit<HostWork & { op: "update" }, "op">) => run({ op: "update", ...how }),
    close: () => helpers.forEach((helper) => void helper.close()),
  };
}
