// Texts as what a model learns from: windows in rows, in an order that follows from a seed. Of several sources each gives
// its share of an epoch, and goes on where it was in the next.

import { invariant, UserError } from "../core/errors.ts";
import { createRandom, type Random } from "../core/random.ts";
import { joined, Stretched, sum, type TokenizedText, type Tokens } from "./document.ts";
import type { Tokenizer } from "./tokenizer/read-tokenizer.ts";
import { evenSubset, numInputs, packRows, packWindows, windowsOver } from "./windows.ts";
import type { Batch, Window } from "./windows.ts";

/**
 * How texts come into rows: all joined and cut where a row ends; whole ones side by side, of which none sees another;
 * each in rows of its own.
 */
const PACKINGS = ["stream", "documents", "rows"] as const;
export const PACKING_CHOICES = ["auto", ...PACKINGS] as const;
type Packing = (typeof PACKINGS)[number];

/** Where in the data a run is: the next row of an epoch's order. Saved with a checkpoint, and all there is to save. */
export type DataCursor = Readonly<{ seed: number; epoch: number; index: number }>;

/** Whole documents are for texts of which only some tokens are targets: `auto` takes them there, else one stream. */
export function packingOf(asked: Packing | "auto", texts: readonly TokenizedText[]): Packing {
  if (asked !== "auto") return asked;
  return texts.some(({ isTarget }) => isTarget) ? "documents" : "stream";
}

type TrainingOptions = Pick<Tokenizer, "endOfText" | "prefix"> &
  Readonly<{ packing: Packing | "auto"; context: number }>;

export type TrainingSet = ReturnType<typeof trainingSet>;

/**
 * What is learnt in an epoch: windows of `context + 1` tokens that overlap by one, so that every token but a text's, or
 * the stream's, first is a target once. Windows without a target are left out.
 */
export function trainingSet(
  texts: readonly TokenizedText[],
  { packing: asked, context, endOfText, prefix }: TrainingOptions,
) {
  const packing = packingOf(asked, texts);
  const isStream = packing === "stream";
  // The end of a stream ends nothing, and where each text begins with the token, it is between them already.
  const mark = isStream && prefix[0] === endOfText ? undefined : endOfText;
  const { stream, bounds } = joinTexts(texts, mark, (text, i) =>
    isStream ? i === texts.length - 1 : endsItself(text, mark!),
  );
  const rule = { context, stride: context, hasFinalTarget: true, tail: "keep" } as const;
  const ends = isStream ? [stream.tokens.length] : bounds.slice(1);
  const windows = windowsOver(ends.length, rule, (i) => {
    return { of: stream, text: 0, from: ends[i - 1] ?? 0, to: ends[i]! };
  });
  const isPacked = packing === "documents";
  const rows = isPacked ? packRows(windows, context).length : windows.length;
  let inputs = 0;
  for (const window of windows) inputs += numInputs(window);
  return {
    stream,
    windows,
    context,
    isPacked,
    /** As a plan shows it. */
    facts: {
      packing,
      texts: texts.length,
      rows,
      /** Places of rows that hold no token. */
      padding: rows * context - inputs,
      /** Tokens that nothing is learnt from: windows without a target. */
      leftOut: stream.tokens.length - ends.length - inputs,
      ...splitTexts(bounds, isStream, context),
    },
  };
}

/** The texts that rows cut into several windows, and those that are longer than the context, of which the first are named. */
function splitTexts(bounds: readonly number[], isStream: boolean, context: number) {
  const longer: { readonly text: number; readonly tokens: number }[] = [];
  const split = { texts: 0, tokens: 0 };
  for (let text = 1; text < bounds.length; text++) {
    const [start, end] = [bounds[text - 1]!, bounds[text]!];
    const tokens = end - start;
    const isLonger = tokens - 1 > context;
    if (isLonger) longer.push({ text, tokens });
    // The last token is no input, nor is it split from those before it.
    const last = Math.max(start, end - 2);
    if (isStream ? Math.floor(start / context) !== Math.floor(last / context) : isLonger) {
      split.texts++;
      split.tokens += tokens;
    }
  }
  return { split, longer: { texts: longer.length, first: longer.slice(0, 5) } };
}

type Rows<Row> = Pick<readonly Row[], "length" | "at">;

/** Rows that each epoch has in an order of its own, from a cursor on. */
export function rowsFrom<Row>(start: DataCursor, rowsOf: (epoch: number) => Rows<Row>) {
  let { epoch, index } = start;
  let rows = rowsOf(epoch);
  return {
    next(): Row {
      if (index >= rows.length) [epoch, index, rows] = [epoch + 1, 0, rowsOf(epoch + 1)];
      return rows.at(index++)!;
    },
    cursor: (): DataCursor => ({ seed: start.seed, epoch, index }),
  };
}

/** The windows of each row in the order that a seed and `of` give: the epoch, and of a later source its place behind. */
export function shuffledRows(set: TrainingSet, seed: number, ...of: number[]): Rows<Window[]> {
  const { stream, windows, context, isPacked } = set;
  invariant(windows.length > 0, `${stream.tokens.length} tokens make no training window`);
  const random = createRandom(seed, ...of);
  const order = orderOf(random, windows.length);
  const shuffled = { length: order.length, at: (i: number) => windows.at(order[i]!) };
  if (!isPacked) return { length: order.length, at: (i) => [shuffled.at(i)!] };
  const rows = packRows(evenSubset(shuffled), context);
  return Array.from(orderOf(random, rows.length), (i) => rows[i]!);
}

/** So many numbers shuffled: four bytes each are all that grows with an epoch. */
function orderOf(random: Random, length: number): Int32Array {
  const order = new Int32Array(length);
  for (let i = 0; i < length; i++) order[i] = i;
  random.shuffle(order);
  return order;
}

/** Whether a text needs no end put behind it: it has one, or its last token is nothing to learn. */
function endsItself({ tokens, isTarget }: TokenizedText, endOfText: number): boolean {
  const last = tokens.length - 1;
  return tokens.subarray(last)[0] === endOfText || isTarget?.subarray(last)[0] === 0;
}

/**
 * All texts as one, without a copy, and where each ends: behind each that does not end itself the mark, which is a
 * target, for it is how a model learns to end.
 */
function joinTexts(
  texts: readonly TokenizedText[],
  mark: number | undefined,
  isEnded: (text: TokenizedText, i: number) => boolean,
): { readonly stream: TokenizedText; readonly bounds: readonly number[] } {
  const end: TokenizedText = { tokens: Uint32Array.from(mark === undefined ? [] : [mark]) };
  const ended = texts.map((text, i) =>
    mark === undefined || isEnded(text, i) ? [text] : [text, end],
  );
  let length = 0;
  const grown = ended.map((parts) => (length += sum(parts.map(({ tokens }) => tokens.length))));
  const [bounds, parts] = [[0, ...grown], ended.flat()];
  if (parts.length === 1) return { stream: parts[0]!, bounds };
  const all = parts.map((part) => part.tokens);
  const tokens = joined<Tokens>((length) => new Uint32Array(length), all);
  if (!texts.some(({ isTarget }) => isTarget)) return { stream: { tokens }, bounds };
  const ones = (length: number) =>
    new Stretched(length, (start, end) => new Uint8Array(end - start).fill(1));
  const masks = parts.map((part) => part.isTarget ?? ones(part.tokens.length));
  const isTarget = joined((length) => new Uint8Array(length), masks);
  return { stream: { tokens, isTarget }, bounds };
}

export interface Source {
  readonly name: string;
  /** Its share among the weights of all; where none is given, sources count by their rows. */
  readonly weight: number | null;
  /** Rows in an epoch of its own. */
  readonly numRows: number;
  readonly training: TrainingSet;
}

/** How many rows each source gives in an epoch, which has as many as all of them together: by largest remainders. */
function rowsPerEpoch(sources: readonly Source[]): readonly number[] {
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
export function sharesOf(sources: readonly Source[]): readonly number[] {
  const rows = rowsPerEpoch(sources);
  return rows.map((count) => count / sum(rows));
}

/** Batches of the rows of all sources mixed, in an order that depends on the cursor alone. */
export function mixedBatches(sources: readonly Source[], start: DataCursor) {
  const { seed, epoch, index } = start;
  const shares = rowsPerEpoch(sources);
  /** Which source gives each row of an epoch; its random numbers are no source's. */
  const orderOf = (epoch: number) => {
    const order = new Int32Array(sum(shares));
    let at = 0;
    for (const [i, length] of shares.entries()) order.fill(i, at, (at += length));
    createRandom(seed, epoch, 0).shuffle(order);
    return order;
  };
  const order = rowsFrom(start, orderOf);
  const given = shares.map((rows) => epoch * rows);
  for (const i of orderOf(epoch).subarray(0, index)) given[i]!++;
  const rows = sources.map(({ numRows, training }, i) => {
    const at = { seed, epoch: Math.floor(given[i]! / numRows), index: given[i]! % numRows };
    return rowsFrom(at, (epoch) => shuffledRows(training, seed, epoch, ...(i > 0 ? [i] : [])));
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
