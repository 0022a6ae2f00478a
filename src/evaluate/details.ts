// What of an evaluation is kept besides its sums, small for any run: losses by place in the window, and those of single
// tokens of an even sample of windows, from which come the tokens that gained and lost most.

import { scoredPlaces } from "../data/windows.ts";
import type { Losses } from "./scorer.ts";
import type { WindowPlan } from "./window-plan.ts";

/** Of the sample, at most; of those that gained, and of those that lost; and around one that is listed. */
const [SAMPLED, LISTED, BEFORE, AFTER] = [16_384, 20, 16, 6];

export type TokenLosses = Readonly<ReturnType<typeof tokenLosses>>;
export type EvaluationDetails = Readonly<ReturnType<typeof compareTokens>>;
export type TokenChange = EvaluationDetails["gained"][number];

type Plan = Pick<WindowPlan, "texts" | "windows" | "conditions">;

export const rounded = (value: number) => Number(value.toPrecision(5));
/** Of places in a window, from 1: each is longer than the one before by √2. */
const groupOf = (place: number) => Math.floor(2 * Math.log2(place));

/** The scored tokens of every window, or of an even sample: number of the window, place in it, number among its own. */
function* scoredTokens({ texts, windows, conditions }: Plan, isSample = false) {
  const step = isSample ? Math.ceil((windows.length * conditions.context) / SAMPLED) : 1;
  for (let w = step >> 1; w < windows.length; w += step) {
    let i = 0;
    for (const place of scoredPlaces(texts[windows[w]!.text]!, windows[w]!))
      yield { w, place, i: i++ };
  }
}

/** What is kept of losses as a scorer gave them: summed nats by group of places, and those of a sample's tokens. */
export function tokenLosses(plan: Plan, losses: Losses) {
  const natsOf = ({ w, i }: { w: number; i: number }) => losses[w]!.tokenNats![i]!;
  const places: number[] = [];
  for (const token of scoredTokens(plan)) {
    const group = groupOf(token.place);
    while (places.length <= group) places.push(0);
    places[group]! += natsOf(token);
  }
  return { places, sample: [...scoredTokens(plan, true)].map((of) => rounded(natsOf(of))) };
}

/** Of tokens whose spelling nobody knows. */
export const asIds = (ids: Iterable<number>) => Array.from(ids, (id) => ` #${id}`);

/** What became of tokens; `spell` writes them. */
export function compareTokens(plan: Plan, before: TokenLosses, after: TokenLosses, spell = asIds) {
  const groups = after.places.map(() => ({ from: Infinity, to: 0, numTokens: 0 }));
  for (const { place } of scoredTokens(plan)) {
    const group = groups[groupOf(place)]!;
    Object.assign(group, { from: Math.min(group.from, place), to: Math.max(group.to, place) });
    group.numTokens++;
  }
  const all = [...scoredTokens(plan, true)].map((token, i) => {
    const nats = [before.sample[i]!, after.sample[i]!] as const;
    return { ...token, nats, change: nats[1] - nats[0] };
  });
  const ordered = all.toSorted((a, b) => a.change - b.change);
  const described = ({ w, place, nats }: (typeof all)[number]) => {
    const { text, start, length } = plan.windows[w]!;
    const from = Math.max(0, place - BEFORE);
    const end = Math.min(length, place + 1 + AFTER);
    const pieces = spell(plan.texts[text]!.tokens.subarray(start + from, start + end));
    const at = place - from;
    const [left, right] = [pieces.slice(0, at).join(""), pieces.slice(at + 1).join("")];
    /** Nats before and after; the place is from 0. */
    return { before: left, text: pieces[at]!, after: right, place, nats };
  };
  const gained = ordered.filter(({ change }) => change < 0);
  const lost = ordered.filter(({ change }) => change > 0).reverse();
  const places = groups.map((group, i) => {
    const means = [before, after].map((of) => rounded(of.places[i]! / group.numTokens));
    return { ...group, lossNats: means };
  });
  return {
    /** Mean nats before and after, by place in the window. */
    places: places.filter(({ numTokens }) => numTokens > 0),
    /** Tokens among which these are the ones that changed most. */
    sampledTokens: all.length,
    gained: gained.slice(0, LISTED).map(described),
    lost: lost.slice(0, LISTED).map(described),
  };
}
