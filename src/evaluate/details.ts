// What of an evaluation is kept besides its sums, small for any run: losses by place in the window, and those of single
// tokens of an even sample of windows, from which come the tokens that gained and lost most.

import { evenSubset, scoredPlaces, type Window } from "../data/windows.ts";
import type { WindowLoss } from "./scorer.ts";
import type { WindowPlan } from "./tasks/perplexity.ts";

/** Places in a window are taken together in at most so many groups, each longer than the one before by the same factor. */
const MOST_GROUPS = 24;
/** Of the sample, about. */
const SAMPLED_TOKENS = 16_384;
/** Of those that gained, and of those that lost. */
const LISTED_TOKENS = 20;
/** Tokens around one that is listed. */
const [TOKENS_BEFORE, TOKENS_AFTER] = [16, 6];

/** Kept between before and after. */
export interface TokenLosses {
  /** Summed nats by place in the window. */
  readonly places: readonly number[];
  /** Nats of every scored token of the sampled windows. */
  readonly sample: readonly (readonly number[])[];
}

export interface TokenChange {
  readonly text: string;
  readonly before: string;
  readonly after: string;
  /** Place in its window, from 0. */
  readonly place: number;
  /** Before and after. */
  readonly nats: readonly [number, number];
}

export type EvaluationDetails = Readonly<ReturnType<typeof compareTokens>>;

type Plan = Pick<WindowPlan, "texts" | "windows" | "conditions">;

const rounded = (value: number) => Number(value.toPrecision(5));

/** The first place of each group, and the one behind the last. */
function bordersOf({ context }: Plan["conditions"]): number[] {
  const border = (i: number) => Math.ceil((context + 1) ** (i / MOST_GROUPS));
  return [...new Set(Array.from({ length: MOST_GROUPS + 1 }, (_, i) => border(i)))];
}

/** Sums over the scored tokens of each group of places. */
function sumByPlace(
  { texts, windows, conditions }: Plan,
  valueOf: (window: number, i: number) => number,
): number[] {
  const borders = bordersOf(conditions);
  const sums = borders.slice(1).map(() => 0);
  for (const [w, window] of windows.entries()) {
    let [group, i] = [0, 0];
    for (const place of scoredPlaces(texts[window.text]!, window)) {
      while (place >= borders[group + 1]!) group++;
      sums[group]! += valueOf(w, i++);
    }
  }
  return sums;
}

const sampleOf = ({ windows, conditions }: Plan): readonly (readonly [number, Window])[] =>
  evenSubset([...windows.entries()], Math.max(1, Math.floor(SAMPLED_TOKENS / conditions.context)));

/** Of losses as a scorer gave them. */
export function tokenLosses(plan: Plan, losses: readonly WindowLoss[]): TokenLosses {
  const natsOf = (window: number) => losses[window]!.tokenNats ?? new Float32Array();
  return {
    places: sumByPlace(plan, (window, i) => natsOf(window)[i]!),
    sample: sampleOf(plan).map(([window]) => Array.from(natsOf(window), rounded)),
  };
}

/** Of tokens whose spelling nobody knows. */
export const idsAsText = (ids: Iterable<number>) => Array.from(ids, (id) => ` #${id}`);

/** What became of tokens; `spell` writes each, which token files have nothing for. */
export function compareTokens(
  plan: Plan,
  before: TokenLosses,
  after: TokenLosses,
  spell: (ids: Iterable<number>) => readonly string[] = (ids) => Array.from(ids, (id) => ` #${id}`),
) {
  const borders = bordersOf(plan.conditions);
  const counts = sumByPlace(plan, () => 1);
  const places = counts.map((numTokens, group) => ({
    from: borders[group]!,
    to: borders[group + 1]! - 1,
    numTokens,
    lossNats: [before, after].map(({ places }) => rounded(places[group]! / numTokens)),
  }));
  const all = sampleOf(plan).flatMap(([, window], row) => {
    const scored = [...scoredPlaces(plan.texts[window.text]!, window)];
    return scored.map((place, i) => {
      const nats = [before.sample[row]![i]!, after.sample[row]![i]!] as const;
      return { window, place, nats, change: nats[1] - nats[0] };
    });
  });
  const ordered = all.toSorted((a, b) => a.change - b.change);
  const described = ({ window: { text, start, length }, place, nats }: (typeof all)[number]) => {
    const from = Math.max(0, place - TOKENS_BEFORE);
    const end = Math.min(length, place + 1 + TOKENS_AFTER);
    const pieces = spell(plan.texts[text]!.tokens.subarray(start + from, start + end));
    const joined = (first: number, last?: number) => pieces.slice(first, last).join("");
    const at = place - from;
    return {
      text: pieces[at]!,
      before: joined(0, at),
      after: joined(at + 1),
      place,
      nats,
    } satisfies TokenChange;
  };
  const listed = (tokens: typeof all) => tokens.slice(0, LISTED_TOKENS).map(described);
  return {
    /** Mean nats before and after, by place in the window. */
    places: places.filter(({ numTokens }) => numTokens > 0),
    /** Tokens among which these are the ones that changed most. */
    sampledTokens: all.length,
    gained: listed(ordered.filter(({ change }) => change < 0)),
    lost: listed(ordered.filter(({ change }) => change > 0).reverse()),
  };
}
